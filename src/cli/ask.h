/*
 * ask - one request, and wait for its answer.
 */
#pragma once
#include <jansson.h>
#include <uv.h>

#include "base/buf.h"
#include "cli/args.h"
#include "http/client.h"

struct answer {
    int status;     /* 0: no whole answer came */
    json_t *json;   /* owned; NULL if the body is not a JSON object */
    struct err err; /* status 0: why */
};

/* "unix:PATH" of the admin socket; the caller frees it. */
char *ask_admin_address(const struct args *args);

/* Appends `text` percent-encoded, fit for a query parameter. */
void ask_add_encoded(struct buf *out, const char *text);

/* Asks `address`; body may be NULL, its reference is taken.  answer_fini() ends
 * the answer. */
void ask(struct answer *out, const char *address, const char *method, const char *target,
         json_t *body);
/* The same of the gateway, with the API key of SEGUE_API_KEY if there is one. */
void ask_gateway(struct answer *out, const char *address, const char *target);
void answer_fini(struct answer *a);

/* "Authorization: Bearer ..." as a header line, or ""; the caller frees it. */
char *ask_key_header(void);

/*
 * Asks the manager.  The JSON object of a 2xx answer goes to *out (new
 * reference); otherwise the reason is printed (with --json the error object too) and the
 * result is the exit code.
 */
int ask_admin(const struct args *args, const char *method, const char *target, json_t *body,
              json_t **out) MUST_CHECK;

/* Says that nobody answers at the admin socket; the exit code. */
int ask_no_server(const struct args *args, const char *why);

/* The sentence in an OpenAI-shaped error, or NULL. Borrowed from `json`. */
const char *ask_error_message(const json_t *json);

/* Runs the loop until nothing is left in it, and closes it. */
void ask_run(uv_loop_t *loop);

/* Members of an object, with what they are when missing. */
const char *json_text(const json_t *o, const char *key, const char *otherwise);
int64_t json_int(const json_t *o, const char *key);
