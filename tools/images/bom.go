package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// bill is a CycloneDX 1.5 document, as far as it is used here.
type bill struct {
	BOMFormat    string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// billOfMaterials lists the modules in a binary, from what Go's linker has written into it.
func billOfMaterials(binary string, p program, version string) ([]byte, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("modules of %s: %w", binary, err)
	}
	sum := sha256.Sum256(content)
	self := component{
		Type: "application", Ref: p.name, Name: p.name, Version: version, PURL: purl(info.Main.Path, version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	for _, s := range info.Settings {
		if s.Key == "GOOS" || s.Key == "GOARCH" || s.Key == "GOARM" || s.Key == "-tags" || s.Key == "CGO_ENABLED" {
			self.Properties = append(self.Properties, property{"wattlet:go:" + strings.TrimPrefix(s.Key, "-"), s.Value})
		}
	}
	all := []component{{Type: "library", Ref: "std", Name: "std", Version: info.GoVersion, PURL: purl("std", strings.TrimPrefix(info.GoVersion, "go"))}}
	for _, m := range info.Deps {
		c := component{Type: "library", Ref: m.Path, Name: m.Path, Version: m.Version, PURL: purl(m.Path, m.Version)}
		if m.Sum != "" {
			c.Properties = append(c.Properties, property{"wattlet:go:sum", m.Sum})
		}
		if m.Replace != nil {
			c.Properties = append(c.Properties, property{"wattlet:go:replaced-by", m.Replace.Path})
			if m.Replace.Version == "" { // by a directory of this repository
				c.PURL = ""
			} else {
				c.Version, c.PURL = m.Replace.Version, purl(m.Replace.Path, m.Replace.Version)
			}
		}
		all = append(all, c)
	}
	// The linker knows what is in the binary, and not who wanted it.
	needs := dependency{Ref: self.Ref}
	for _, c := range all {
		needs.DependsOn = append(needs.DependsOn, c.Ref)
	}
	id := sum
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8: of one's own making, here from the binary
	b, err := json.MarshalIndent(bill{
		BOMFormat: "CycloneDX", SpecVersion: "1.5", Version: 1,
		SerialNumber: fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]),
		Metadata:     metadata{self}, Components: all, Dependencies: []dependency{needs},
	}, "", "  ")
	return append(b, '\n'), err
}

// purl is the package URL of a Go module.
func purl(module, version string) string {
	if version == "" || version == "unknown" {
		return "pkg:golang/" + module
	}
	return "pkg:golang/" + module + "@" + strings.ReplaceAll(version, "+", "%2B")
}
