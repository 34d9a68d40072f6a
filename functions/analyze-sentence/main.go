// Command analyze-sentence is a function that splits an English sentence into words and tells the part of speech of each, with the tags
// of the Penn Treebank.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"unicode/utf8"

	"github.com/wattlet/wattlet/functions/internal/serve"
	"github.com/wattlet/wattlet/functions/internal/treebank"
)

func main() { os.Exit(serve.Main(function())) }

const maxBody = 64 << 10

func function() serve.Function {
	a := &analyzer{}
	return serve.Function{Name: "analyze-sentence", Prepare: a.prepare, Serve: a.invoke, MaxBody: maxBody, InFlight: 32}
}

type analyzer struct{ tagger *treebank.Tagger }

func (a *analyzer) prepare(context.Context) (err error) {
	if a.tagger, err = treebank.NewTagger(); err != nil {
		return fmt.Errorf("the tagger's model: %w", err)
	}
	debug.FreeOSMemory() // three quarters of what the model took to unpack
	return nil
}

type answer struct {
	Sentence string  `json:"sentence"`
	Tokens   []token `json:"tokens"`
}

// token is sentence[start:end], in characters as Python counts them: Unicode code points.
type token struct {
	Text  string `json:"text"`
	Tag   string `json:"tag"`
	Start int    `json:"start"`
	End   int    `json:"end"`
}

func (a *analyzer) invoke(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &serve.StatusError{Status: http.StatusMethodNotAllowed, Message: `send a POST with a body such as {"sentence": "It works."}`}
	}
	if err := serve.NewQuery(r).Err(); err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return serve.BadRequest("the body is shorter than was announced")
	} else if err != nil {
		return err
	}
	sentence, err := parse(body)
	if err != nil {
		return err
	}
	return serve.JSON(w, a.analyze(sentence))
}

// parse reads {"sentence": "..."}; other members are ignored.
func parse(body []byte) (string, error) {
	var question struct {
		Sentence *string `json:"sentence"`
	}
	switch err := json.Unmarshal(body, &question); {
	case err != nil:
		return "", serve.BadRequest(`the body is not of the form {"sentence": "It works."}: %v`, err)
	case question.Sentence == nil:
		return "", serve.BadRequest(`the body has no "sentence": want {"sentence": "It works."}`)
	case !utf8.Valid(body):
		return "", serve.BadRequest("the body is not UTF-8")
	}
	return *question.Sentence, nil
}

func (a *analyzer) analyze(sentence string) answer {
	tokens := treebank.Tokenize(sentence)
	a.tagger.Tag(tokens)
	ans := answer{Sentence: sentence, Tokens: make([]token, 0, len(tokens))}
	characters, bytes := 0, 0
	upTo := func(end int) int {
		characters += utf8.RuneCountInString(sentence[bytes:end])
		bytes = end
		return characters
	}
	for _, t := range tokens {
		ans.Tokens = append(ans.Tokens, token{Text: t.Text, Tag: t.Tag, Start: upTo(t.Start), End: upTo(t.End)})
	}
	return ans
}
