package ipfix

func (t *Template) isTypeInfo() bool { return false }
func (s *Session) learn(set DataSet) {}
