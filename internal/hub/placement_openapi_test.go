package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// description is placement.openapi.yaml as maps.
func description(t testing.TB) map[string]any {
	t.Helper()
	var d map[string]any
	if err := yaml.Unmarshal(placementOpenAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at is what a map of maps has at a path.
func at(t testing.TB, d any, path ...string) any {
	t.Helper()
	for _, p := range path {
		m, ok := d.(map[string]any)
		if !ok || m[p] == nil {
			t.Fatalf("there is no %s in %v", p, path)
		}
		d = m[p]
	}
	return d
}

// checkAgainstDescription checks an answer: every key is described, and what it has is of a type it may be.
func checkAgainstDescription(t testing.TB, body []byte) {
	t.Helper()
	var answer any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	d := description(t)
	for _, fault := range faults(t, d, at(t, d, "components", "schemas", "Placement"), answer, "") {
		t.Error(fault)
	}
}

// faults are where a value is not as a schema has it, as far as our description uses JSON Schema.
func faults(t testing.TB, d map[string]any, schema, v any, where string) (list []string) {
	t.Helper()
	s, ok := schema.(map[string]any)
	if !ok {
		t.Fatalf("%s: no schema: %v", where, schema)
	}
	if ref, ok := s["$ref"].(string); ok {
		path := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		return faults(t, d, at(t, d, path...), v, where)
	}
	if any, ok := s["anyOf"].([]any); ok {
		for _, one := range any {
			if list = faults(t, d, one, v, where); len(list) == 0 {
				return nil
			}
		}
		return list
	}
	types, ok := s["type"].([]any)
	if !ok {
		types = []any{s["type"]}
	}
	kind := map[reflect.Kind]string{reflect.String: "string", reflect.Float64: "number", reflect.Bool: "boolean", reflect.Map: "object", reflect.Slice: "array"}
	is := "null"
	if v != nil {
		is = kind[reflect.TypeOf(v).Kind()]
	}
	f, number := v.(float64)
	if !slices.Contains(types, any(is)) && !(number && f == float64(int64(f)) && slices.Contains(types, any("integer"))) {
		return []string{fmt.Sprintf("%s is %s, described as %v", where, is, types)}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		list = append(list, fmt.Sprintf("%s is %v, described as one of %v", where, v, enum))
	}
	if c, ok := s["const"]; ok && c != v {
		list = append(list, fmt.Sprintf("%s is %v, described as %v", where, v, c))
	}
	if text, ok := v.(string); ok && s["format"] == "date-time" {
		if at, err := time.Parse(time.RFC3339, text); err != nil || at.Location() != time.UTC {
			list = append(list, fmt.Sprintf("%s is no time in UTC: %s", where, text))
		}
	}
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			list = append(list, faults(t, d, s["items"], one, fmt.Sprintf("%s[%d]", where, i))...)
		}
	case map[string]any:
		properties, _ := s["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if properties[name] == nil {
				list = append(list, fmt.Sprintf("%s.%s is not described", where, name))
				continue
			}
			list = append(list, faults(t, d, properties[name], v[name], where+"."+name)...)
		}
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				list = append(list, fmt.Sprintf("%s.%s is missing", where, name))
			}
		}
	}
	return list
}

// TestPlacementDescription compares the description with the types: the same keys, all required, and null where a pointer can be.
func TestPlacementDescription(t *testing.T) {
	t.Parallel()
	d := description(t)
	described := map[string]bool{"Error": true}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		name := typ.Name()
		if described[name] {
			return
		}
		described[name] = true
		schema := at(t, d, "components", "schemas", name)
		properties, _ := at(t, schema, "properties").(map[string]any)
		var keys, required []string
		for field := range typ.Fields() {
			key, option, _ := strings.Cut(field.Tag.Get("json"), ",")
			keys = append(keys, key)
			if option != "" {
				t.Errorf("%s.%s: a key is always there", name, field.Name)
			}
			text, err := yaml.Marshal(properties[key])
			if err != nil {
				t.Fatal(err)
			}
			of := field.Type
			if null := of.Kind() == reflect.Pointer; null != strings.Contains(string(text), `"null"`) {
				t.Errorf("%s.%s: null in Go: %v, described as\n%s", name, key, null, text)
			}
			if of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
				of = of.Elem()
			}
			if of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]() {
				if !strings.Contains(string(text), "#/components/schemas/"+of.Name()) {
					t.Errorf("%s.%s is a %s, described as\n%s", name, key, of.Name(), text)
				}
				check(of)
			}
		}
		for _, r := range at(t, schema, "required").([]any) {
			required = append(required, fmt.Sprint(r))
		}
		if !slices.Equal(keys, required) {
			t.Errorf("%s has keys %v, described as required %v", name, keys, required)
		}
		slices.Sort(keys)
		if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, keys) {
			t.Errorf("%s has keys %v, described %v", name, keys, got)
		}
	}
	check(reflect.TypeFor[Placement]())
	for name := range at(t, d, "components", "schemas").(map[string]any) {
		if !described[name] {
			t.Errorf("%s is described and is none", name)
		}
	}
	// The checker itself finds what is wrong.
	bad := `{"format":"x","time":"2026-11-24T13:00:00+01:00","function":1,"namespace":null,"basis":"window","window_seconds":null,"function_known":true,
		"estimates":[{"agents":1.5}],"more":1}`
	var v any
	if err := json.Unmarshal([]byte(bad), &v); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(faults(t, d, at(t, d, "components", "schemas", "Placement"), v, ""), "\n")
	for _, want := range []string{
		".format is x", ".time is no time in UTC", ".function is number", ".window_seconds is null", ".more is not described", ".warnings is missing",
		".estimates[0].agents is number", ".estimates[0].power is missing",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not found in\n%s", want, got)
		}
	}
}
