package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

var ready = sync.OnceValue(func() *analyzer {
	a := &analyzer{}
	if err := a.prepare(context.Background()); err != nil {
		panic(err)
	}
	return a
})

func say(method, body string) (string, error) {
	w := httptest.NewRecorder()
	err := ready().invoke(w, httptest.NewRequest(method, "/", strings.NewReader(body)))
	return w.Body.String(), err
}

func TestInvoke(t *testing.T) {
	for body, want := range map[string]string{
		`{"sentence": "It works."}`: `{"sentence":"It works.","tokens":[` +
			`{"text":"It","tag":"PRP","start":0,"end":2},{"text":"works","tag":"VBZ","start":3,"end":8},{"text":".","tag":".","start":8,"end":9}]}`,
		`{"sentence": "Zoë’s café isn’t open!", "lang": "en"}`: `{"sentence":"Zoë’s café isn’t open!","tokens":[` +
			`{"text":"Zoë","tag":"NNP","start":0,"end":3},{"text":"’s","tag":"POS","start":3,"end":5},{"text":"café","tag":"NN","start":6,"end":10},` +
			`{"text":"is","tag":"VBZ","start":11,"end":13},{"text":"n’t","tag":"RB","start":13,"end":16},{"text":"open","tag":"JJ","start":17,"end":21},{"text":"!","tag":".","start":21,"end":22}]}`,
		`{"sentence": ""}`:       `{"sentence":"","tokens":[]}`,
		`{"sentence": " \n\t "}`: `{"sentence":" \n\t ","tokens":[]}`,
		`{"sentence": "0 * \u0000"}`: `{"sentence":"0 * \u0000","tokens":[{"text":"0","tag":"CD","start":0,"end":1},` +
			`{"text":"*","tag":"SYM","start":2,"end":3},{"text":"\u0000","tag":"NN","start":4,"end":5}]}`,
	} {
		if got, err := say(http.MethodPost, body); got != want+"\n" || err != nil {
			t.Errorf("%s: %s, %v, want %s", body, got, err, want)
		}
	}
}

func TestFaults(t *testing.T) {
	for body, want := range map[string]string{
		"":                         "unexpected end of JSON input",
		"It works.":                `the body is not of the form {"sentence": "It works."}`,
		`{"sentence": 5}`:          "cannot unmarshal number",
		`{"sentence": null}`:       `has no "sentence"`,
		`{}`:                       `has no "sentence"`,
		`["sentence"]`:             "cannot unmarshal array",
		`{"sentence": "a"} x`:      "invalid character 'x'",
		"{\"sentence\": \"\xff\"}": "not UTF-8",
		`{"sentence": "a`:          "unexpected end",
	} {
		if got, err := say(http.MethodPost, body); err == nil || !strings.Contains(err.Error(), want) || got != "" {
			t.Errorf("%s: %v, wrote %q, want %s", body, err, got, want)
		}
	}
	if _, err := say(http.MethodGet, ""); err == nil || !strings.Contains(err.Error(), "send a POST") {
		t.Error(err)
	}
}

// Any body is analysed or refused; tokens are the sentence's own characters in order, and between them is space.
func FuzzBody(f *testing.F) {
	f.Add(`{"sentence": "It can't be 5.2% — “surely”, e.g. Mr. O'Neil's."}`)
	f.Add("{\"sentence\": \"'tis ''quoted'' ``so``... -- https://example.org/?a=b, joe@example.org.\"}")
	f.Add(`{"sentence": null}`)
	f.Add("{\"sentence\": \"\\ud800 \xff\"}")
	f.Fuzz(func(t *testing.T, body string) {
		text, err := say(http.MethodPost, body)
		if err != nil {
			return
		}
		var got answer
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(text, err)
		}
		var asked struct {
			Sentence string `json:"sentence"`
		}
		if err := json.Unmarshal([]byte(body), &asked); err != nil || asked.Sentence != got.Sentence {
			t.Errorf("%q came back as %q, %v", asked.Sentence, got.Sentence, err)
		}
		characters, at := []rune(got.Sentence), 0
		for _, token := range got.Tokens {
			if token.Start < at || token.Text != string(characters[token.Start:token.End]) || token.Text == "" || token.Tag == "" {
				t.Errorf("%+v after %d in %q", token, at, got.Sentence)
			}
			if between := string(characters[at:token.Start]); strings.TrimSpace(between) != "" {
				t.Errorf("%q is in no token", between)
			}
			at = token.End
		}
		if rest := string(characters[at:]); strings.TrimSpace(rest) != "" || !utf8.ValidString(text) {
			t.Errorf("%q is in no token", rest)
		}
	})
}

func BenchmarkInvoke(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := say(http.MethodPost, `{"sentence": "The quick brown fox can't jump over Kim's 5.2 million lazy dogs."}`); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a := &analyzer{}
		if err := a.prepare(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
