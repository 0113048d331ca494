package users

import (
	"errors"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// yaml reads a YAML file: a list of mappings of keys to plain values.
func (p *fileParser) yaml(data []byte) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		problem := Problem{Text: err.Error()}
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			problem.Text = syntax.GetMessage()
			problem.Line, problem.Column = position(syntax.GetToken())
		}
		p.problem(problem)
		return
	}
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode: // nobody holds anything
		case *ast.SequenceNode:
			for _, item := range body.Values {
				p.yamlBinding(item)
			}
		default:
			p.nodeProblem(body, "", `must be a list: each item begins with "- "`)
		}
	}
}

// yamlBinding reads an item of the list.
func (p *fileParser) yamlBinding(item ast.Node) {
	mapping, ok := item.(*ast.MappingNode)
	if !ok {
		p.nodeProblem(item, "", "must be keys and values, such as {prefix: 192.0.2.1, user: alice}")
		return
	}
	var r row
	r.line, _ = position(mapping.GetToken())
	ok = true
	for i, v := range mapping.Values {
		name := v.Key.GetToken()
		if line, _ := position(name); i == 0 {
			r.line = line
		}
		key := slices.Index(keys[:], name.Value)
		if key < 0 {
			ok = false
			p.nodeProblem(v.Key, name.Value, "is unknown: the keys are "+knownKeys())
			continue
		}
		f := &r.fields[key]
		f.line, f.column = position(v.Value.GetToken())
		switch value := v.Value.(type) {
		case *ast.NullNode: // as if it were not there
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
			// As it is written: 007 is no number to us.
			f.value = value.GetToken().Value
		default:
			ok = false
			p.nodeProblem(v.Value, name.Value, "must be a plain value on one line")
		}
	}
	if ok {
		p.add(&r)
	}
}

func (p *fileParser) nodeProblem(n ast.Node, key, text string) {
	line, column := position(n.GetToken())
	p.problem(Problem{Line: line, Column: column, Key: key, Text: text})
}

func position(t *token.Token) (line, column int) {
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}
