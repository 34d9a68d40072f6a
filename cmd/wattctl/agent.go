package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// agentFlags say how agents are asked: as whom, and whom to trust.
type agentFlags struct {
	User         string `placeholder:"NAME" help:"Name for basic auth."`
	PasswordFile string `type:"path" placeholder:"FILE" help:"File with the password for basic auth."`
	CA           string `name:"ca" type:"path" placeholder:"FILE" help:"Certificates to trust for https, PEM; default the system's."`
}

// request makes a request for one of an agent's pages and who sends it, from flags and the files they name.
func (c agentFlags) request(agent, page string) (*http.Request, *http.Client, error) {
	at := agent
	if !strings.Contains(at, "://") {
		at = "http://" + at
	}
	u, err := url.Parse(at)
	switch {
	case err != nil:
		return nil, nil, usagef("%s is not an agent's address: %w; as 10.0.0.7:9780", agent, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.User != nil:
		return nil, nil, usagef("%s is not an agent's address; as 10.0.0.7:9780 or https://pi.example:9780, a user by --user",
			u.Redacted())
	case (c.User == "") != (c.PasswordFile == ""):
		return nil, nil, usagef("--user and --password-file go together")
	case c.CA != "" && u.Scheme != "https":
		return nil, nil, usagef("--ca is for https://%s", u.Host)
	}
	req, err := http.NewRequest(http.MethodGet, u.JoinPath(page).String(), http.NoBody) //nolint:noctx // who sends it has one
	if err != nil {
		return nil, nil, usageError{err}
	}
	req.Header.Set("User-Agent", "wattctl/"+version)
	if c.User != "" {
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, nil, usagef("--password-file: %w", err)
		}
		req.SetBasicAuth(c.User, strings.TrimRight(string(password), "\r\n"))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, nil, usagef("--ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, nil, usagef("--ca: %s has no certificate in PEM", c.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return req, &http.Client{Transport: transport}, nil
}

// refusal is the error of an answer that is not what was asked for.
func refusal(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return errors.New(resp.Status + "; give --user and --password-file")
	case http.StatusNotFound:
		return errors.New(resp.Status + "; is this an agent, and not an older one?")
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // as much as there is
	return fmt.Errorf("%s: %s", resp.Status, cmp.Or(strings.Join(strings.Fields(string(text)), " "), "nothing more"))
}
