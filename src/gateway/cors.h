/*
 * gateway/cors - pages of other origins (Fetch Standard, section 3.3, CORS protocol).
 *
 * Off unless `cors` lists origins.  An answer to an allowed origin says so; a
 * preflight is answered here and reaches no engine.  An origin that is not
 * listed gets the same answers without the permission, and its browser keeps
 * them from the page.
 */
#pragma once
#include <stdbool.h>

struct client;
struct http_request_head;

/*
 * Looks at a request's Origin.  c->cors is then the header lines that belong into
 * its answer (owned by the client), or NULL.
 */
void cors_take(struct client *c, const struct http_request_head *head);

/* Answers a preflight; false if the request is none. */
bool cors_preflight(struct client *c, const struct http_request_head *head);
