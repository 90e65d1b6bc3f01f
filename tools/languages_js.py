#!/usr/bin/env python3
"""languages_js.py HEADER PROMPT OUT: the languages and prompts of src/translate as a script.

The page and the program must speak of the same languages in the same words, so
the page's copy is made from the C rows at build time.
"""
import json
import re
import sys


def main(header, prompt, out):
    rows = re.findall(r'X\("([^"]+)",\s*"([^"]+)",\s*"([^"]+)"\)', open(header, encoding="utf-8").read())
    templates = dict(re.findall(r'#define PROMPT_(\w+)[\s\\]*("[^\n]*")', open(prompt, encoding="utf-8").read()))
    if len(rows) < 2 or set(templates) != {"CHINESE", "ENGLISH"}:
        sys.exit(f"{header}, {prompt}: not the expected shape")
    with open(out, "w", encoding="utf-8") as f:
        f.write("// Made from src/translate by tools/languages_js.py.\n")
        f.write("export const LANGUAGES = [\n")
        for code, english, chinese in rows:
            f.write(f"  {json.dumps([code, english, chinese], ensure_ascii=False)},\n")
        f.write("];\n")
        for name, text in templates.items():
            f.write(f"export const PROMPT_{name} = {text};\n")


main(*sys.argv[1:])
