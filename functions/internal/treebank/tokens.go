// Package treebank splits English text into words and tells their parts of speech, both in the manner of the Penn Treebank
// (Marcus, Santorini, Marcinkiewicz 1993).
package treebank

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Token is a word, or a part of one, or punctuation.
type Token struct {
	Text       string
	Tag        string
	Start, End int // bytes in the text: it is text[Start:End]
}

// Tokenize splits text, which is valid UTF-8. What is between tokens is space.
//
// A contraction becomes two tokens (do|n't, we|'ll, Kim|'s, can|not), punctuation stands alone but within numbers, abbreviations,
// initials, addresses of pages and people, and words with a hyphen; a full stop ends a sentence also before the end of the text.
func Tokenize(text string) []Token {
	var tokens []Token
	at := 0
	for at < len(text) {
		r, n := utf8.DecodeRuneInString(text[at:])
		if unicode.IsSpace(r) {
			at += n
			continue
		}
		end := at + n
		for end < len(text) {
			r, n := utf8.DecodeRuneInString(text[end:])
			if unicode.IsSpace(r) {
				break
			}
			end += n
		}
		tokens = chunk(tokens, text, at, end)
		at = end
	}
	return tokens
}

// chunk splits text[from:to], which has no space in it.
func chunk(tokens []Token, text string, from, to int) []Token {
	add := func(from, to int) {
		if from < to {
			tokens = append(tokens, Token{Text: text[from:to], Start: from, End: to})
		}
	}
	// What stands before the word and is none of it.
	for from < to {
		n := leading(text[from:to])
		if n == 0 {
			break
		}
		add(from, from+n)
		from += n
	}
	// What stands behind it, the last first.
	var behind []int // where each of these begins
	end := to
	for from < end {
		n := trailing(text, from, end)
		if n == 0 {
			break
		}
		end -= n
		behind = append(behind, end)
	}
	if address(text[from:end]) {
		add(from, end)
	} else {
		for from < end {
			cut, n := inner(text[from:end])
			if n == 0 {
				break
			}
			tokens = word(tokens, text, from, from+cut)
			add(from+cut, from+cut+n)
			from += cut + n
		}
		tokens = word(tokens, text, from, end)
	}
	for i, begin := range slices.Backward(behind) {
		stop := to
		if i > 0 {
			stop = behind[i-1]
		}
		add(begin, stop)
	}
	return tokens
}

const (
	openers = "([{<\"“”„«‘`'¿¡#$£€¥*…"
	closers = ")]}>\"”“»’'`,;:!?%*…"
)

// leading returns how many bytes of s, at its beginning, are a token of their own.
func leading(s string) int {
	if n := repeated(s); n > 0 {
		return n
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == '\'' || r == '’' {
		if suffix(s) == len(s) || shortened(s[n:]) { // 's that stands alone, '90s, 'em
			return 0
		}
	}
	if strings.ContainsRune(openers, r) || strings.ContainsRune(closers, r) || dash(r) {
		return n
	}
	return 0
}

// repeated returns the length of “ ” -- or ... at the beginning of s.
func repeated(s string) int {
	for _, twice := range []string{"``", "''"} {
		if strings.HasPrefix(s, twice) {
			return 2
		}
	}
	for _, c := range []string{".", "-"} {
		if n := len(s) - len(strings.TrimLeft(s, c)); n > 1 {
			return n
		}
	}
	return 0
}

func dash(r rune) bool { return r == '–' || r == '—' || r == '―' }

func shortened(s string) bool {
	return s != "" && s[0] >= '0' && s[0] <= '9' ||
		len(s) < 8 && slices.Contains([]string{"em", "til", "tis", "twas", "cause", "round"}, strings.ToLower(s))
}

// trailing returns how many bytes at the end of text[from:end] are a token of their own.
func trailing(text string, from, end int) int {
	s := text[from:end]
	for _, twice := range []string{"``", "''"} {
		if strings.HasSuffix(s, twice) {
			return 2
		}
	}
	for _, c := range []string{".", "-"} {
		if n := len(s) - len(strings.TrimRight(s, c)); n > 1 {
			return n
		}
	}
	r, n := utf8.DecodeLastRuneInString(s)
	switch {
	case r == '.':
		if n == len(s) || !ends(s[:len(s)-n], text[end:]) {
			return 0
		}
		return n
	case n == len(s):
		return 0
	case strings.ContainsRune(closers, r) || dash(r) || r == '$' || r == '€' || r == '£':
		return n
	}
	return 0
}

// ends tells whether a full stop between before and after ends a sentence, or only an abbreviation.
func ends(before, after string) bool {
	after = strings.TrimLeftFunc(after, func(r rune) bool { return strings.ContainsRune(closers, r) && !strings.ContainsRune(",;:", r) })
	if rest := strings.TrimSpace(after); rest == "" {
		// The last stop of the text is the sentence's, but for the abbreviations that would be two words without theirs.
		return !dotted(before)
	} else if r, _ := utf8.DecodeRuneInString(after); !unicode.IsSpace(r) {
		return false // before a comma, say
	}
	if r, n := utf8.DecodeRuneInString(before); n == len(before) && unicode.IsUpper(r) && r != 'I' {
		return false // an initial
	}
	lower := strings.ToLower(before)
	if titles[lower] {
		return false
	}
	next, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(after, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(openers, r)
	}))
	if unicode.IsLower(next) {
		return false
	}
	return !abbreviations[lower] && !dotted(before)
}

// dotted tells whether s is like U.S and e.g and Ph.D, whose last stop is their own.
func dotted(s string) bool {
	if !strings.Contains(s, ".") {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if utf8.RuneCountInString(part) > 2 || strings.ContainsFunc(part, func(r rune) bool { return !unicode.IsLetter(r) }) {
			return false
		}
	}
	return true
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// titles stand before a name, abbreviations also before other things; both with their stop.
var (
	titles        = set("mr mrs ms dr prof gen col sgt capt lt gov sen rep rev st hon messrs mt ft no fig vs")
	abbreviations = set("inc corp co ltd jr sr bros etc approx dept est jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun")
)

// address tells whether s is a page's, a person's or a file's address, which has punctuation within.
func address(s string) bool {
	if strings.Contains(s, "://") || strings.HasPrefix(strings.ToLower(s), "www.") {
		return true
	}
	user, host, ok := strings.Cut(s, "@")
	return ok && user != "" && strings.Contains(strings.Trim(host, "."), ".")
}

// inner returns where in s, and how long, the first token of its own is that stands between two words without spaces.
func inner(s string) (cut, n int) {
	for i, r := range s {
		before, _ := utf8.DecodeLastRuneInString(s[:i])
		after, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):])
		switch {
		case dash(r), strings.ContainsRune("\"“”()[]{}<>;!?…&=", r) && !between(before, after, r):
			return i, utf8.RuneLen(r)
		case r == ',' || r == ':':
			if !unicode.IsDigit(before) || !unicode.IsDigit(after) {
				return i, 1
			}
		case r == '-' || r == '.':
			if n := repeated(s[i:]); n > 0 {
				return i, n
			}
		}
	}
	return 0, 0
}

// between tells whether r belongs to one word with what is around it: AT&T.
func between(before, after, r rune) bool {
	return r == '&' && unicode.IsUpper(before) && unicode.IsUpper(after)
}

// word splits contractions and possessives.
func word(tokens []Token, text string, from, to int) []Token {
	add := func(from, to int) {
		tokens = append(tokens, Token{Text: text[from:to], Start: from, End: to})
	}
	s := text[from:to]
	if s == "" {
		return tokens
	}
	if len(s) < 8 {
		if n := two[strings.ToLower(s)]; n > 0 {
			add(from, from+n)
			add(from+n, to)
			return tokens
		}
	}
	if n := suffix(s); n > 0 && n < len(s) {
		tokens = word(tokens, text, from, to-n) // wouldn't've
		add(to-n, to)
		return tokens
	}
	add(from, to)
	return tokens
}

// two has words that are two without an apostrophe, and how long the first is.
var two = map[string]int{"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3}

// suffix returns the length of what a contraction or possessive has at the end of s: n't 's 'm 'd 're 've 'll, with either apostrophe.
func suffix(s string) int {
	i := strings.LastIndexAny(s, "'’")
	if i < 0 {
		return 0
	}
	_, n := utf8.DecodeRuneInString(s[i:])
	switch strings.ToLower(s[i+n:]) {
	case "s", "m", "d", "re", "ve", "ll":
		return len(s) - i
	case "t":
		if i > 1 && (s[i-1] == 'n' || s[i-1] == 'N') {
			return len(s) - i + 1
		}
	}
	return 0
}
