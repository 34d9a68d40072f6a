// Helm writes what of the chart deploy/helm/wattlet can be made from its schema of values: values.yaml, whose comments are the
// schema's descriptions, and the table of values in README.md. A test keeps both current.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: helm CHART, which gets its values.yaml and the table in its README.md")
		os.Exit(2) //nolint:forbidigo // a command
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1) //nolint:forbidigo // a command
	}
}

// Names of files in a chart.
const (
	schemaFile = "values.schema.json"
	valuesFile = "values.yaml"
	readmeFile = "README.md"
)

// The table stands between these lines of README.md.
const (
	tableBegins = "<!-- values: made by make chart -->\n"
	tableEnds   = "<!-- end of values -->\n"
)

// write makes the chart's generated files anew.
func write(chart string) error {
	files, err := generate(chart)
	if err != nil {
		return err
	}
	dir, err := os.OpenRoot(chart)
	if err != nil {
		return err
	}
	defer dir.Close()
	for name, text := range files {
		if err := dir.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the chart's generated files by name.
func generate(chart string) (map[string][]byte, error) {
	dir, err := os.OpenRoot(chart)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	text, err := dir.ReadFile(schemaFile)
	if err != nil {
		return nil, err
	}
	root, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	var values bytes.Buffer
	values.WriteString("# All values with their defaults. Made from values.schema.json by make chart, which has the descriptions.\n")
	if err := root.values(&values, ""); err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	readme, err := dir.ReadFile(readmeFile)
	if err != nil {
		return nil, err
	}
	var table strings.Builder
	if err := root.rows(&table, ""); err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	readme, err = between(readme, "| value | default | |\n|---|---|---|\n"+table.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", readmeFile, err)
	}
	return map[string][]byte{valuesFile: values.Bytes(), readmeFile: readme}, nil
}

// between puts the table into the text, in place of the one that is there.
func between(text []byte, table string) ([]byte, error) {
	head, rest, ok := bytes.Cut(text, []byte(tableBegins))
	_, tail, ok2 := bytes.Cut(rest, []byte(tableEnds))
	if !ok || !ok2 {
		return nil, fmt.Errorf("it lacks the lines %q and %q", tableBegins, tableEnds)
	}
	return bytes.Join([][]byte{head, []byte(tableBegins + table + tableEnds), tail}, nil), nil
}

// value is what the schema says about one value: a leaf has a default, others have parts.
type value struct {
	name        string
	description string
	standard    *yaml.Node // the default; nil if the value has parts
	parts       []value
	strict      bool // nothing but the parts may be there
}

// parse reads a schema. JSON is YAML, whose nodes keep the order in which values are written.
func parse(schema []byte) (value, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(schema, &doc); err != nil {
		return value{}, err
	}
	if len(doc.Content) != 1 {
		return value{}, errors.New("it is empty")
	}
	return read("", doc.Content[0])
}

func read(name string, n *yaml.Node) (value, error) {
	v := value{name: name}
	var parts *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch content := n.Content[i+1]; n.Content[i].Value {
		case "description":
			v.description = content.Value
		case "default":
			v.standard = content
		case "properties":
			parts = content
		case "additionalProperties":
			v.strict = content.Tag == "!!bool" && content.Value == "false"
		}
	}
	if v.standard != nil {
		if v.description == "" {
			return v, fmt.Errorf("%s has a default and no description", name)
		}
		return v, nil
	}
	if parts == nil || len(parts.Content) == 0 || !v.strict {
		return v, fmt.Errorf("%s has neither a default nor parts beside which nothing may be", name)
	}
	for i := 0; i+1 < len(parts.Content); i += 2 {
		part, err := read(parts.Content[i].Value, parts.Content[i+1])
		if err != nil {
			return v, err
		}
		v.parts = append(v.parts, part)
	}
	return v, nil
}

// flow returns YAML in one line.
func flow(n *yaml.Node) (string, error) {
	var restyle func(n *yaml.Node)
	restyle = func(n *yaml.Node) {
		if n.Style = 0; n.Kind != yaml.ScalarNode {
			n.Style = yaml.FlowStyle
		}
		// Helm reads YAML 1.1, where these are no strings.
		if n.Tag == "!!str" && slices.Contains([]string{"", "y", "n", "yes", "no", "on", "off"}, strings.ToLower(n.Value)) {
			n.Style = yaml.DoubleQuotedStyle
		}
		for _, c := range n.Content {
			restyle(c)
		}
	}
	restyle(n)
	text, err := yaml.Marshal(n)
	return strings.TrimSpace(string(text)), err
}

// values writes a values.yaml.
func (v value) values(w *bytes.Buffer, indent string) error {
	for _, part := range v.parts {
		if indent == "" {
			w.WriteString("\n")
		}
		if part.description != "" {
			fmt.Fprintf(w, "%s# %s\n", indent, part.description)
		}
		if part.standard == nil {
			fmt.Fprintf(w, "%s%s:\n", indent, part.name)
			if err := part.values(w, indent+"  "); err != nil {
				return err
			}
			continue
		}
		text, err := flow(part.standard)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s%s: %s\n", indent, part.name, text)
	}
	return nil
}

// rows writes the rows of a table in Markdown.
func (v value) rows(w *strings.Builder, prefix string) error {
	for _, part := range v.parts {
		if part.standard == nil {
			if err := part.rows(w, prefix+part.name+"."); err != nil {
				return err
			}
			continue
		}
		text, err := flow(part.standard)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| `%s` | `%s` | %s |\n", prefix+part.name, text, strings.ReplaceAll(part.description, "|", `\|`))
	}
	return nil
}
