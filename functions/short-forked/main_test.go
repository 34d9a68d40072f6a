package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test's program be the child, as the function's is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		os.Exit(child(os.Args[2]))
	}
	os.Exit(m.Run())
}

func TestInvoke(t *testing.T) {
	for query, want := range map[string]string{
		"":                                 `{"children":5,"below":100000,"primes":9592}` + "\n",
		"children=7&below=1000&parallel=3": `{"children":7,"below":1000,"primes":168}` + "\n",
		"children=1&below=0":               `{"children":1,"below":0,"primes":0}` + "\n",
		"children=0":                       "want a whole number from 1 to 500",
		"children=501":                     "want a whole number",
		"parallel=17":                      "want a whole number from 1 to 16",
		"below=5000001":                    "want a whole number",
		"below=1;reboot":                   "query: invalid semicolon",
	} {
		w := httptest.NewRecorder()
		got := ""
		if err := invoke(w, httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err != nil {
			got = err.Error()
		} else {
			got = w.Body.String()
		}
		if got != want && (strings.HasPrefix(want, "{") || !strings.Contains(got, want)) {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

// The work is done by the children, and they are reaped.
func TestChildrenWork(t *testing.T) {
	spent := func(who int) (d int64) {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			t.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	own, children := spent(syscall.RUSAGE_SELF), spent(syscall.RUSAGE_CHILDREN)
	w := httptest.NewRecorder()
	if err := invoke(w, httptest.NewRequest(http.MethodGet, "/?children=4&below=200000", nil)); err != nil {
		t.Fatal(err)
	}
	own, children = spent(syscall.RUSAGE_SELF)-own, spent(syscall.RUSAGE_CHILDREN)-children
	if children < 2*own {
		t.Errorf("the children used %d ns, their parent %d", children, own)
	}
}

func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := invoke(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)); err == nil {
		t.Error("it did not end")
	}
}

// A program that is no child of ours says so instead of being believed.
func TestForkFails(t *testing.T) {
	for self, want := range map[string]string{"/bin/echo": "a child said", "/bin/false": "a child: exit status 1", "/nowhere": "a child: fork/exec"} {
		if n, err := fork(t.Context(), self, 10); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %d, %v, want %s", self, n, err, want)
		}
	}
	for _, below := range []string{"", "x", "-1", "5000001"} {
		if code := child(below); code != 2 {
			t.Errorf("child of %q: %d", below, code)
		}
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
