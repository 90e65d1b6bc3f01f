/*
 * web - the files of the translate page, inside the executable.
 *
 * Made at build time from this folder by tools/embed.py.  Everything is
 * constant and lives as long as the program.
 */
#pragma once
#include "base/span.h"

struct web_file {
    const char *path; /* "/" or "/web/NAME" */
    const char *content_type;
    const char *data;
    size_t n;
    const char *etag; /* with its quotes; changes with the content */
};

extern const struct web_file web_files[];
extern const size_t nweb_files;

/*
 * Header lines that belong to each of these files: nothing from outside, nothing
 * inline, no framing; asked for again with If-None-Match after an upgrade.
 */
#define WEB_HEADERS                                                                      \
    "Content-Security-Policy: default-src 'self'; base-uri 'none'; form-action 'none'; " \
    "frame-ancestors 'none'\r\n"                                                         \
    "X-Content-Type-Options: nosniff\r\n"                                                \
    "Referrer-Policy: no-referrer\r\n"                                                   \
    "Cache-Control: no-cache\r\n"

/* The file with exactly this path, or NULL. */
const struct web_file *web_file_find(struct span path);
