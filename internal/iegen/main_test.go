package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The committed table is what the committed facts give.
func TestGeneratedIsCurrent(t *testing.T) {
	want, err := os.ReadFile("../../ipfix/ie_generated.go")
	if err != nil {
		t.Fatal(err)
	}
	got, err := generate(elementsCSV, nonreversibleCSV)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("ipfix/ie_generated.go is not current: run go generate ./ipfix")
	}
}

func TestGenerateRefuses(t *testing.T) {
	const head = "number,name,type,semantics,units,status\n"
	for _, test := range []struct{ name, elements, want string }{
		{"no column names", "1,a,string,default,,current\n", "columns must be"},
		{"a number twice", head + "1,a,string,default,,current\n1,b,string,default,,current\n", "number \"1\" after 1"},
		{"a number of 16 bits", head + "32768,a,string,default,,current\n", "number \"32768\""},
	} {
		_, err := generate([]byte(test.elements), []byte("number,name\n"))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
	}
}
