package sysfsmeter

import (
	"strconv"
	"strings"
	"testing"
)

func TestParseInt(t *testing.T) {
	for in, want := range map[string]int64{
		"0\n": 0, "5104\n": 5104, "-40\n": -40, "7": 7, "12\x00": 12, "5 \n": 5, "00012": 12, "-0\n": 0,
		"999999999999999999\n": 999_999_999_999_999_999,
	} {
		if got, err := parseInt([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "\n", "-", "-\n", "+5\n", "5.1\n", "5,1", "0x10\n", "1e3\n", "12 34\n", " 5\n", "5\n6\n", "N/A\n", "--5", "5-", "٣",
		"1000000000000000000\n", "99999999999999999999999999\n",
	} {
		if got, err := parseInt([]byte(in)); err == nil {
			t.Errorf("%q: read as %d", in, got)
		}
	}
}

// FuzzParseInt compares with the standard library, which allows more.
func FuzzParseInt(f *testing.F) {
	for _, s := range []string{"5104\n", "-40\n", "", "-", "+1", "999999999999999999\n", "1000000000000000000", "12\x00\n", "1 2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := parseInt(in)
		trimmed := strings.TrimRight(string(in), "\n \x00")
		want, wantErr := strconv.ParseInt(trimmed, 10, 64)
		digits := len(strings.TrimPrefix(trimmed, "-"))
		fits := wantErr == nil && digits <= 18 && !strings.HasPrefix(trimmed, "+")
		if fits != (err == nil) || got != want && fits {
			t.Errorf("%q: %d, %v; the standard library says %d, %v", in, got, err, want, wantErr)
		}
	})
}
