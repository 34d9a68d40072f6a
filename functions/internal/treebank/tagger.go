package treebank

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jdkato/prose/tag"
)

// Tagger tells parts of speech: a perceptron with averaged weights (Collins 2002) that sees a word, its neighbours, their endings
// and the two tags before it. It does not change, so that any number of goroutines may use it.
//
// The weights are those that the module jdkato/prose carries, learnt from news of the Wall Street Journal. Its own tagger keeps them in
// maps of maps, three times as large, and sums in the order of these maps, which is another one each time.
type Tagger struct {
	tags    []string
	certain map[string]uint8 // words that have one tag in the text learnt from
	features
}

// features are the weights, in thousandths, for each feature and tag.
type features struct {
	index   map[uint64]span // by the feature's FNV-1a hash
	weights []weight
}

type span struct{ from, to uint32 }

// weight is of one tag: a value of 24 bits, and below it the tag's number.
type weight int32

const maxWeight = 1<<23 - 1

func (w weight) tag() uint8   { return uint8(w) }
func (w weight) value() int32 { return int32(w >> 8) }

// NewTagger unpacks the weights, which takes much longer than to tag a sentence.
func NewTagger() (*Tagger, error) {
	model := tag.NewPerceptronTagger()
	t := &Tagger{tags: slices.Sorted(slices.Values(model.Classes())), certain: map[string]uint8{}}
	number := map[string]uint8{}
	for i, name := range t.tags {
		number[name] = uint8(i)
	}
	if len(number) != len(t.tags) || len(t.tags) > math.MaxUint8 {
		return nil, errors.New("the model's tags are not distinct, or too many")
	}
	for word, name := range model.TagMap() {
		n, ok := number[name]
		if !ok {
			return nil, fmt.Errorf("the model's word %q has the tag %q, which is none of the model's", word, name)
		}
		t.certain[word] = n
	}
	all := model.Weights()
	t.index = make(map[uint64]span, len(all))
	for feature, byTag := range all {
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(feature))
		if _, taken := t.index[hash.Sum64()]; taken {
			return nil, fmt.Errorf("the model's feature %q has the hash of another", feature)
		}
		from := len(t.weights)
		for name, value := range byTag {
			thousandths := math.Round(value * 1000)
			if math.Abs(thousandths) > maxWeight {
				return nil, fmt.Errorf("the model's feature %q has a weight of %v", feature, value)
			}
			n, ok := number[name]
			if !ok {
				return nil, fmt.Errorf("the model's feature %q has a weight for %q, which is none of the model's tags", feature, name)
			}
			if thousandths != 0 {
				t.weights = append(t.weights, weight(int32(thousandths)<<8|int32(n)))
			}
		}
		t.index[hash.Sum64()] = span{uint32(from), uint32(len(t.weights))}
	}
	t.weights = slices.Clip(t.weights)
	return t, nil
}

// Tag fills in the tags of tokens as Tokenize returns them.
func (t *Tagger) Tag(tokens []Token) {
	for len(tokens) > 0 {
		n := sentence(tokens)
		t.sentence(tokens[:n])
		tokens = tokens[n:]
	}
}

// sentence returns how many of tokens are the first sentence.
func sentence(tokens []Token) int {
	for i := range tokens {
		if tokens[i].Text != "." && tokens[i].Text != "!" && tokens[i].Text != "?" {
			continue
		}
		for i++; i < len(tokens) && strings.Contains(`.!?)]"”''’`, tokens[i].Text); i++ {
		}
		return i
	}
	return len(tokens)
}

func (t *Tagger) sentence(tokens []Token) {
	own := t.spellings(tokens)
	// Two words that are none stand at both ends.
	words := make([]string, len(tokens)+4)
	words[0], words[1], words[len(words)-2], words[len(words)-1] = "-START-", "-START2-", "-END-", "-END2-"
	for i := range own {
		words[i+2] = normal(own[i])
	}
	before, before2 := words[0], words[1]
	scores := make([]int32, len(t.tags))
	for i := range tokens {
		name, ok := mark(own[i])
		if n, certain := t.certain[own[i]]; !ok && certain {
			name, ok = t.tags[n], true
		}
		if !ok {
			name = t.guess(scores, words, i+2, own[i], before, before2)
		}
		tokens[i].Tag = name
		before, before2 = name, before
	}
}

// common tells whether the model knows a word, in small letters, and not as a name above all.
func (t *Tagger) common(small string) bool {
	if n, ok := t.certain[small]; ok {
		return !strings.HasPrefix(t.tags[n], "NNP")
	}
	s := t.index[hash([]string{"i word", normal(small)})]
	best := weight(0)
	for _, w := range t.weights[s.from:s.to] {
		if w.value() > best.value() || w.value() == best.value() && w.tag() < best.tag() {
			best = w
		}
	}
	return best.value() > 0 && !strings.HasPrefix(t.tags[best.tag()], "NNP")
}

// guess returns the tag with the highest score; of several the first by name.
func (t *Tagger) guess(scores []int32, words []string, i int, own, before, before2 string) string {
	clear(scores)
	add := func(parts ...string) {
		s := t.index[hash(parts)]
		for _, w := range t.weights[s.from:s.to] {
			scores[w.tag()] += w.value()
		}
	}
	add("bias")
	add("i suffix", last3(own))
	add("i pref1", string(rune(own[0]))) // a byte as a character, as the weights were learnt
	add("i-1 tag", before)
	add("i-2 tag", before2)
	add("i tag+i-2 tag", before, before2)
	add("i word", words[i])
	add("i-1 tag+i word", before, words[i])
	add("i-1 word", words[i-1])
	add("i-1 suffix", last3(words[i-1]))
	add("i-2 word", words[i-2])
	add("i+1 word", words[i+1])
	add("i+1 suffix", last3(words[i+1]))
	add("i+2 word", words[i+2])
	best := 0
	for n := range scores {
		if scores[n] > scores[best] {
			best = n
		}
	}
	return t.tags[best]
}

// hash is FNV-1a of parts with a space between.
func hash(parts []string) uint64 {
	h := uint64(14695981039346656037)
	for i, p := range parts {
		if i > 0 {
			h = (h ^ ' ') * 1099511628211
		}
		for j := range len(p) {
			h = (h ^ uint64(p[j])) * 1099511628211
		}
	}
	return h
}

func last3(s string) string { return s[max(0, len(s)-3):] }

// normal is a word as the model knows it: classes of numbers and words with hyphens, others in small letters.
func normal(s string) string {
	digit := func(b byte) bool { return b >= '0' && b <= '9' }
	switch {
	case strings.Contains(s, "-") && s[0] != '-':
		return "!HYPHEN"
	case len(s) == 4 && digit(s[0]) && digit(s[1]) && digit(s[2]) && digit(s[3]):
		return "!YEAR"
	case digit(s[0]):
		return "!DIGITS"
	}
	return strings.ToLower(s)
}

// spellings returns the words of a sentence as in the text that was learnt from.
func (t *Tagger) spellings(tokens []Token) []string {
	own := make([]string, len(tokens))
	for i := range tokens {
		own[i] = spelling(tokens, i)
	}
	// The first word has a capital whatever it is: it is taken for a name only if the model knows it as one.
	for i := range own {
		r, n := utf8.DecodeRuneInString(own[i])
		if !unicode.IsLetter(r) {
			continue
		}
		if small := string(unicode.ToLower(r)) + own[i][n:]; unicode.IsUpper(r) && t.common(small) {
			own[i] = small
		}
		break
	}
	return own
}

// spelling returns a token with the apostrophes and quotation marks of the text that was learnt from.
func spelling(tokens []Token, i int) string {
	switch s := tokens[i].Text; s {
	case "“", "„", "«", "‘", "`":
		return "``"
	case "”", "»":
		return "''"
	case `"`, "'", "’":
		touches := i+1 < len(tokens) && tokens[i+1].Start == tokens[i].End
		if opens := touches && (i == 0 || tokens[i-1].End < tokens[i].Start || opener(tokens[i-1].Text)); opens {
			return "``"
		} else if s == `"` {
			return "''"
		}
		return "'" // a quotation's end or a possessive, which the model tells
	default:
		return strings.ReplaceAll(s, "’", "'")
	}
}

func opener(s string) bool { return strings.Contains("([{<—–``", s) }

// mark returns the tag of punctuation, symbols and numbers, which nothing has to be guessed for.
func mark(s string) (string, bool) {
	switch s {
	case ".", "!", "?":
		return ".", true
	case ",":
		return ",", true
	case ":", ";", "–", "—", "―", "…":
		return ":", true
	case "(", "[", "{", "<":
		return "(", true
	case ")", "]", "}", ">":
		return ")", true
	case "``", "''":
		return s, true
	case "$", "£", "€", "¥", "#":
		return map[bool]string{true: "#", false: "$"}[s == "#"], true
	case "%":
		return "NN", true
	case "&":
		return "CC", true
	case "*", "=", "+", "@", "<<", ">>", "¿", "¡":
		return "SYM", true
	}
	if strings.Trim(s, ".") == "" || strings.Trim(s, "-") == "" {
		return ":", true
	}
	if number(s) {
		return "CD", true
	}
	return "", false
}

// number tells whether s has digits and what may stand between and before them, and nothing else.
func number(s string) bool {
	digits := false
	for i, r := range s {
		switch {
		case unicode.IsDigit(r):
			digits = true
		case strings.ContainsRune(".,:/", r), i == 0 && (r == '-' || r == '+' || r == '−'):
		default:
			return false
		}
	}
	return digits && utf8.ValidString(s)
}
