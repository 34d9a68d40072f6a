package workload

import "testing"

func TestKinds(t *testing.T) {
	t.Parallel()
	for word, kind := range map[string]Kind{"pod": Pod, "function": Function, "system": System, "agent": Agent} {
		if got, err := ParseKind(word); err != nil || got != kind || kind.String() != word {
			t.Errorf("%q is %v, %v; %v is %q", word, got, err, kind, kind.String())
		}
	}
	for _, word := range []string{"", "Pod", "node", "kind(4)"} {
		if _, err := ParseKind(word); err == nil {
			t.Errorf("%q is a kind", word)
		}
	}
	if got := Kind(9).String(); got != "kind(9)" {
		t.Errorf("an unknown kind is %q", got)
	}
}
