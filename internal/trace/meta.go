package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wattlet/wattlet/internal/energy"
)

// Meta is what trace.json says of a trace.
type Meta struct {
	// Format is Format; Create sets it.
	Format string `json:"format"`
	Node   string `json:"node"`
	// Start is the host's wall clock at the trace's start.
	Start time.Time `json:"start"`
	// Cores is the number of cores per class; the class is empty where all are alike.
	Cores map[string]int `json:"cores"`
	// OperatingPoints are the steps of each class's frequency and voltage, where known.
	OperatingPoints map[string][]OperatingPoint `json:"operating_points,omitempty"`
	// Meter is nil where nothing is known of the meter's errors.
	Meter *Meter `json:"meter,omitempty"`
	// Recorder is the program that wrote the trace, with its version.
	Recorder string `json:"recorder"`
}

// OperatingPoint is a step of a core class's frequency, with the supply voltage it runs at.
type OperatingPoint struct {
	KHz       int64          `json:"khz"`
	Microvolt energy.Voltage `json:"microvolt"`
}

// Meter is how far a meter's readings may be off.
type Meter struct {
	// GainStdDev is the relative standard deviation of its gain, Noise that of its power over one second.
	GainStdDev float64      `json:"gain_stddev"`
	Noise      energy.Power `json:"noise_uw"`
}

// validate checks what ParseMeta would refuse to read, for a writer.
func (m *Meta) validate() error {
	if len(m.Cores) == 0 {
		return errNoCores
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if !utf8.ValidString(m.Node + m.Recorder) {
		return errors.New("a name is not UTF-8")
	}
	_, err = ParseMeta(metaFile, data)
	return err
}

// ParseMeta reads the text of a trace.json; file is its name for errors, which are of type *Error. Format and cores must be
// there; a key that the format does not have is an error.
func ParseMeta(file string, data []byte) (Meta, error) {
	data = bytes.TrimPrefix(data, bom)
	w := &jsonWalk{file: file, data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	w.dec.UseNumber()
	var m Meta
	if len(bytes.TrimSpace(data)) == 0 {
		return Meta{}, &Error{File: file, What: "is empty"}
	}
	if !utf8.Valid(data) {
		return Meta{}, &Error{File: file, What: "is not UTF-8"}
	}
	w.object("trace", map[string]func(string){
		"format": func(k string) {
			if m.Format = w.text(k); m.Format != Format {
				w.fail("this program reads " + Format + ", not " + show(m.Format))
			}
		},
		"node":     func(k string) { m.Node = w.text(k) },
		"recorder": func(k string) { m.Recorder = w.text(k) },
		"start": func(k string) {
			var err error
			if m.Start, err = time.Parse(time.RFC3339, w.text(k)); err != nil {
				w.fail(`"start" is not a time such as "2026-11-23T18:00:00Z"`)
			}
		},
		"cores": func(k string) {
			m.Cores = map[string]int{}
			w.each(k, func(class string) {
				m.Cores[class] = int(w.whole("the number of cores", 1, math.MaxInt32))
			})
		},
		"operating_points": func(k string) {
			m.OperatingPoints = map[string][]OperatingPoint{}
			w.each(k, func(class string) {
				m.OperatingPoints[class] = []OperatingPoint{}
				w.array(class, func() {
					var p OperatingPoint
					w.object("operating point", map[string]func(string){
						"khz":       func(k string) { p.KHz = w.whole(k, 1, math.MaxInt64) },
						"microvolt": func(k string) { p.Microvolt = energy.Voltage(w.whole(k, 1, math.MaxInt64)) },
					}, "khz", "microvolt")
					m.OperatingPoints[class] = append(m.OperatingPoints[class], p)
				})
			})
		},
		"meter": func(string) {
			m.Meter = &Meter{}
			w.object("meter", map[string]func(string){
				"gain_stddev": func(k string) { m.Meter.GainStdDev = w.number(k) },
				"noise_uw":    func(k string) { m.Meter.Noise = energy.Power(w.whole(k, 0, math.MaxInt64)) },
			})
		},
	}, "format")
	if _, err := w.dec.Token(); w.err == nil && !errors.Is(err, io.EOF) {
		w.at = len(w.data) - len(bytes.TrimLeft(w.data[w.dec.InputOffset():], " \t\r\n"))
		w.fail("there is more text after the object")
	}
	if w.err != nil {
		return Meta{}, w.err
	}
	if len(m.Cores) == 0 {
		return Meta{}, &Error{File: file, What: errNoCores.Error()}
	}
	for class := range m.OperatingPoints {
		if _, ok := m.Cores[class]; !ok {
			return Meta{}, &Error{File: file, What: "operating_points has class " + show(class) + ", which cores has not"}
		}
	}
	return m, nil
}

// jsonWalk reads JSON token by token, because encoding/json does not say where an unknown key stands. The first fault stops
// it: all methods then do nothing.
type jsonWalk struct {
	file string
	data []byte
	dec  *json.Decoder
	at   int // where the last token began
	err  error
}

func (w *jsonWalk) fail(what string) {
	if w.err == nil {
		line, column := position(w.data, w.at)
		w.err = &Error{File: w.file, Line: line, Column: column, What: what}
	}
}

// next returns where the next token begins.
func (w *jsonWalk) next() int {
	at := int(w.dec.InputOffset())
	for at < len(w.data) && bytes.IndexByte([]byte(" \t\r\n,:"), w.data[at]) >= 0 {
		at++
	}
	return at
}

func (w *jsonWalk) token() json.Token {
	if w.err != nil {
		return nil
	}
	w.at = w.next()
	t, err := w.dec.Token()
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		w.fail("not JSON: " + syntax.Error())
	} else if err != nil {
		w.at = len(w.data)
		w.fail("not JSON: the text ends within a value")
	}
	return t
}

func (w *jsonWalk) open(what string, delim json.Delim) bool {
	if t := w.token(); t != delim {
		w.fail(fmt.Sprintf("%s must begin with %s", what, delim))
	}
	return w.err == nil
}

// object reads an object whose keys are known.
func (w *jsonWalk) object(what string, keys map[string]func(key string), must ...string) {
	begin := w.next()
	seen := w.each(what, func(key string) {
		if read, ok := keys[key]; ok {
			read(key)
		} else {
			w.fail("unknown key " + show(key))
		}
	})
	for _, key := range must {
		if !slices.Contains(seen, key) {
			w.at = begin
			w.fail(what + " has no " + strconv.Quote(key))
		}
	}
}

// each reads an object with any keys, and returns them.
func (w *jsonWalk) each(what string, read func(key string)) (keys []string) {
	ok := w.open(what, '{')
	for ok && w.err == nil && w.dec.More() {
		key, _ := w.token().(string)
		if slices.Contains(keys, key) {
			w.fail("key " + show(key) + " is there twice")
		}
		if len(keys) == maxClasses {
			w.fail(what + " has more than " + strconv.Itoa(maxClasses) + " keys")
		}
		if w.err == nil {
			keys = append(keys, key)
			read(key)
		}
	}
	w.token() // the closing brace
	return keys
}

func (w *jsonWalk) array(what string, read func()) {
	if w.open(what, '[') {
		for w.err == nil && w.dec.More() {
			read()
		}
		w.token()
	}
}

func (w *jsonWalk) text(what string) string {
	s, ok := w.token().(string)
	if !ok {
		w.fail(what + " must be a text in quotes")
	}
	return s
}

func (w *jsonWalk) whole(what string, low, high int64) int64 {
	n, _ := w.token().(json.Number)
	v, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || v < low || v > high {
		w.fail(fmt.Sprintf("%s must be a whole number from %d to %d", what, low, high))
	}
	return v
}

func (w *jsonWalk) number(what string) float64 {
	n, _ := w.token().(json.Number)
	v, err := n.Float64()
	if err != nil || v < 0 {
		w.fail(what + " must be a number, not below 0")
	}
	return v
}
