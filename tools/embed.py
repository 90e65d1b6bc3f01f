#!/usr/bin/env python3
"""embed.py OUT FILE...: a C file with the bytes of the page's files, for web/web.h.

index.html becomes "/", every other file "/web/NAME".
"""
import hashlib
import os
import sys

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def array(name, data):
    lines = [",".join(str(b) for b in data[i : i + 24]) for i in range(0, len(data), 24)]
    # A zero after the end, so that an empty file is an array too.
    return f"static const unsigned char {name}[] = {{\n" + ",\n".join(lines + ["0"]) + "};\n"


def main(out, files):
    arrays, rows = [], []
    for i, file in enumerate(sorted(files)):
        name = os.path.basename(file)
        with open(file, "rb") as f:
            data = f.read()
        path = "/" if name == "index.html" else "/web/" + name
        kind = TYPES[os.path.splitext(name)[1]]
        etag = hashlib.sha256(data).hexdigest()[:16]
        arrays.append(array(f"file_{i}", data))
        rows.append(f'    {{"{path}", "{kind}", (const char *)file_{i}, {len(data)}, "\\"{etag}\\""}},\n')
    with open(out, "w", encoding="utf-8") as f:
        f.write("/* Made by tools/embed.py. */\n#include \"web/web.h\"\n\n")
        f.write("\n".join(arrays))
        f.write("\nconst struct web_file web_files[] = {\n" + "".join(rows) + "};\n")
        f.write(f"const size_t nweb_files = {len(rows)};\n")


main(sys.argv[1], sys.argv[2:])
