package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestInvoke(t *testing.T) {
	for query, want := range map[string]string{
		"":              `{"below":500000,"primes":41538}` + "\n",
		"below=1000000": `{"below":1000000,"primes":78498}` + "\n",
		"below=0":       `{"below":0,"primes":0}` + "\n",
	} {
		w := httptest.NewRecorder()
		if err := invoke(w, httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err != nil || w.Body.String() != want {
			t.Errorf("%q: %s, %v, want %s", query, w.Body, err, want)
		}
	}
	for _, query := range []string{"below=-1", "below=50000001", "n=1", "below=many"} {
		if err := invoke(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err == nil {
			t.Errorf("%q is taken", query)
		}
	}
}

func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	if err := invoke(w, httptest.NewRequest(http.MethodGet, "/?below=50000000", nil).WithContext(ctx)); err == nil || w.Body.Len() > 0 {
		t.Errorf("%v, wrote %s", err, w.Body)
	}
}

func BenchmarkInvoke(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := invoke(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)); err != nil {
			b.Fatal(err)
		}
	}
}
