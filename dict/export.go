package dict

import (
	_ "embed"
	"fmt"
	"strings"
)

// goDiameter is what GoDiameter returns for DefaultVendor, kept as a file so
// that others can read and take it without running Tollbridge.
//
//go:embed tollbridge.xml
var goDiameter string

// GoDiameter returns the dictionary in the format of go-diameter, to be loaded
// beside its own: the vendor's AVPs, and the AVPs of RFC 7155 and RFC 5777 that
// its base application lacks.
func (d *Dictionary) GoDiameter() string {
	if d.vendor == DefaultVendor {
		return goDiameter
	}
	return d.writeGoDiameter()
}

func (d *Dictionary) writeGoDiameter() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<!-- Code generated from the registry of Information Elements by package dict. DO NOT EDIT. -->
<diameter>
	<application id="0" name="Base">
		<vendor id="%d" name="Tollbridge"/>
`, d.vendor)
	for _, s := range standard {
		must := "-"
		if s.Mandatory {
			must = "M"
		}
		fmt.Fprintf(&b, "\t\t<avp name=%q code=\"%d\" must=%q may=\"-\" must-not=\"V\" may-encrypt=\"-\">\n", s.Name, s.Code, must)
		s.writeGoDiameter(&b)
	}
	for _, s := range structural {
		fmt.Fprintf(&b, "\t\t<avp name=%q code=\"%d\" must=\"V\" may=\"-\" must-not=\"M\" may-encrypt=\"-\" vendor-id=\"%d\">\n", namePrefix+s.Name, s.Code, d.vendor)
		s.writeGoDiameter(&b)
	}
	for e := range elements() {
		fmt.Fprintf(&b, "\t\t<avp name=%q code=\"%d\" must=\"V\" may=\"-\" must-not=\"M\" may-encrypt=\"-\" vendor-id=\"%d\"><data type=%q/></avp>\n",
			elementPrefix+e.Name, elementCode(e.Enterprise, e.ID), d.vendor, TypeOf(e.Type))
	}
	b.WriteString("\t</application>\n</diameter>\n")
	return b.String()
}

func (s *definition) writeGoDiameter(b *strings.Builder) {
	if len(s.Members)+len(s.Values) == 0 {
		fmt.Fprintf(b, "\t\t\t<data type=%q/>\n\t\t</avp>\n", s.Type)
		return
	}
	fmt.Fprintf(b, "\t\t\t<data type=%q>\n", s.Type)
	for _, m := range s.Members {
		fmt.Fprintf(b, "\t\t\t\t<rule avp=%q required=\"false\"/>\n", avpName(m))
	}
	for _, v := range s.Values {
		fmt.Fprintf(b, "\t\t\t\t<item code=\"%d\" name=%q/>\n", v.Number, v.Name)
	}
	b.WriteString("\t\t\t</data>\n\t\t</avp>\n")
}

// Wireshark returns the vendor's AVPs in the format of Wireshark and tshark,
// for the file diameter/Custom.xml of its data directory. Wireshark knows the
// IETF's AVPs by itself.
func (d *Dictionary) Wireshark() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<!-- Code generated from the registry of Information Elements by package dict. DO NOT EDIT. -->
<vendor vendor-id="Tollbridge" code="%d" name="Tollbridge">
`, d.vendor)
	open := func(name string, code uint32) {
		fmt.Fprintf(&b, "\t<avp name=%q code=\"%d\" vendor-id=\"Tollbridge\" mandatory=\"mustnot\" protected=\"mustnot\" may-encrypt=\"no\" vendor-bit=\"must\">", name, code)
	}
	for _, s := range structural {
		open(namePrefix+s.Name, s.Code)
		if s.Type == Grouped {
			b.WriteString("\n\t\t<grouped>\n")
			for _, m := range s.Members {
				fmt.Fprintf(&b, "\t\t\t<gavp name=%q/>\n", avpName(m))
			}
			b.WriteString("\t\t</grouped>\n\t</avp>\n")
			continue
		}
		fmt.Fprintf(&b, "\n\t\t<type type-name=%q/>\n", wiresharkType(s.Type))
		for _, v := range s.Values {
			fmt.Fprintf(&b, "\t\t<enum name=%q code=\"%d\"/>\n", v.Name, v.Number)
		}
		b.WriteString("\t</avp>\n")
	}
	for e := range elements() {
		open(elementPrefix+e.Name, elementCode(e.Enterprise, e.ID))
		fmt.Fprintf(&b, "<type type-name=%q/>", wiresharkType(TypeOf(e.Type)))
		if TypeOf(e.Type) == Enumerated {
			b.WriteString(`<enum name="true" code="1"/><enum name="false" code="2"/>`)
		}
		b.WriteString("</avp>\n")
	}
	b.WriteString("</vendor>\n")
	return b.String()
}

func wiresharkType(t Type) string {
	if t == Address {
		return "IPAddress"
	}
	return t.String()
}

// FreeDiameter returns the C source of an extension for freeDiameter that
// declares the vendor's AVPs, since that daemon reads no dictionary files. It
// compiles against the headers of libfreediameter:
//
//	cc -shared -fPIC -o dict_tollbridge.fdx dict_tollbridge.c
//
// A relay needs no dictionary: all these AVPs have the M bit clear.
func (d *Dictionary) FreeDiameter() string {
	var b strings.Builder
	fmt.Fprintf(&b, `/* Code generated from the registry of Information Elements by package dict. DO NOT EDIT. */
#include <freeDiameter/extension.h>

static const struct {
	const char *name;
	uint32_t code;
	enum dict_avp_basetype base;
	const char *type; /* derived type, or NULL */
} avps[] = {
`)
	line := func(name string, code uint32, t Type) {
		base, derived := freeDiameterType(t)
		fmt.Fprintf(&b, "\t{ %q, %d, %s, %s },\n", name, code, base, derived)
	}
	for _, s := range structural {
		line(namePrefix+s.Name, s.Code, s.Type)
	}
	for e := range elements() {
		line(elementPrefix+e.Name, elementCode(e.Enterprise, e.ID), TypeOf(e.Type))
	}
	fmt.Fprintf(&b, `};

static int dict_tollbridge_entry(char *conffile)
{
	struct dict_vendor_data vendor = { %d, "Tollbridge" };
	size_t i;

	CHECK_FCT(fd_dict_new(fd_g_config->cnf_dict, DICT_VENDOR, &vendor, NULL, NULL));
	for (i = 0; i < sizeof(avps) / sizeof(avps[0]); i++) {
		struct dict_object *type = NULL;
		struct dict_avp_data avp = {
			avps[i].code, %d, (char *)avps[i].name,
			AVP_FLAG_VENDOR | AVP_FLAG_MANDATORY, AVP_FLAG_VENDOR, avps[i].base
		};
		if (avps[i].type)
			CHECK_FCT(fd_dict_search(fd_g_config->cnf_dict, DICT_TYPE, TYPE_BY_NAME, avps[i].type, &type, ENOENT));
		CHECK_FCT(fd_dict_new(fd_g_config->cnf_dict, DICT_AVP, &avp, type, NULL));
	}
	return 0;
}

EXTENSION_ENTRY("dict_tollbridge", dict_tollbridge_entry);
`, d.vendor, d.vendor)
	return b.String()
}

// freeDiameterType returns the base type, and the derived one as a C
// expression.
func freeDiameterType(t Type) (base, derived string) {
	switch t {
	case Integer32, Enumerated:
		return "AVP_TYPE_INTEGER32", "NULL"
	case Integer64:
		return "AVP_TYPE_INTEGER64", "NULL"
	case Unsigned32:
		return "AVP_TYPE_UNSIGNED32", "NULL"
	case Unsigned64:
		return "AVP_TYPE_UNSIGNED64", "NULL"
	case Float32:
		return "AVP_TYPE_FLOAT32", "NULL"
	case Float64:
		return "AVP_TYPE_FLOAT64", "NULL"
	case Grouped:
		return "AVP_TYPE_GROUPED", "NULL"
	case Address, Time, UTF8String, DiameterIdentity:
		return "AVP_TYPE_OCTETSTRING", fmt.Sprintf("%q", t)
	}
	return "AVP_TYPE_OCTETSTRING", "NULL"
}
