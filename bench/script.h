/*
 * script - the requests to send, each made once as whole bytes: head and body.
 *
 * Three sources: a fixed chat body of so many bytes, HY-MT's translation prompt
 * with the sentences of a file, or a template file.  Each request exists twice,
 * plain and streamed.
 */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct request {
    char *bytes; /* owned by the script */
    size_t n;
    bool stream;
    size_t sentence; /* index of its sentence */
};

struct script_options {
    const char *host; /* the Host field */
    const char *path; /* "/v1/chat/completions" */
    const char *model;
    const char *headers;   /* further header lines, each with CRLF */
    const char *sentences; /* file: first column of a TSV; NULL: none */
    const char *template;  /* file: body with @model@, @stream@, @sentence@; NULL: none */
    unsigned body_bytes;   /* without a template or sentences: length of the body */
    unsigned max_tokens;   /* 0: not sent */
    double temperature;    /* below 0: not sent */
    bool close;            /* one request for each connection */
};

struct script {
    struct request *plain, *streamed; /* owned arrays of `count` */
    char **sentences;                 /* owned array of `count`; "" where there is none */
    size_t count;
};

int script_make(struct script *s, const struct script_options *o, struct err *err) MUST_CHECK;
void script_fini(struct script *s);
