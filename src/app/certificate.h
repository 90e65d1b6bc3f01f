/*
 * app/certificate - the TLS certificate of segue.yaml on its way to the gateway.
 *
 *   tls.certificate, tls.key ─▶ read ─▶ check ─▶ gateway_link ─▶ new connections
 *         ▲                               └── bad: said, the one before stays
 *         └── looked at every few seconds, and at SIGHUP
 *
 * The gateway opens no file; it gets the texts.  What whoever renews the files does
 * between two writes (a new certificate with the old key) is seen as a mistake that
 * is over with the next look.
 */
#pragma once
#include <stdbool.h>

#include "base/err.h"

struct manager;

/* Reads, checks and hands over; then watches. Without `tls` nothing happens. */
int certificate_start(struct manager *m, struct err *err) MUST_CHECK;

/* Reads the files again, changed or not. */
void certificate_reload(struct manager *m);

/* Watches no longer; memory goes when libuv has let go. */
void certificate_stop(struct manager *m);
