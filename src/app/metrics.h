/*
 * app/metrics - the figures for machines: Prometheus text, and JSON with whole
 * histograms for those who compute rates themselves (`segue top`).
 *
 *    gateway's rows ──▶ account ──┬─▶ GET /metrics            (admin socket, metrics.listen)
 *    models, fleet, /proc ────────┴─▶ GET /admin/v1/counters
 *
 * docs/observability.md lists the names.
 */
#pragma once
#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

struct manager;

/* For the admin interface; arg is the manager. */
void metrics_text(struct buf *out, void *arg);
json_t *metrics_counters(void *arg);

/* Answers GET /metrics on the addresses of `metrics.listen`, if there are any. */
int metrics_start(struct manager *m, struct err *err) MUST_CHECK;
void metrics_stop(struct manager *m);
