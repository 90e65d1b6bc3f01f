/*
 * switches - what was acknowledged when, and whether answers agree with it.
 *
 * A line of the switch log is "ACK_NS VERSION [BEGIN_NS]": from ACK_NS on
 * (CLOCK_MONOTONIC) no request that starts may be answered by another version,
 * until the next switch begins at its BEGIN_NS.  Without BEGIN_NS a switch is
 * taken to have begun a second before its acknowledgement.
 *
 * Answers are judged later than they come, when the lines about their time are
 * surely there.
 */
#pragma once
#include "base/err.h"
#include "base/span.h"
#include "names.h"

struct switches;

/* One finished request. */
struct record {
    uint64_t started_ns; /* just before its first byte was sent */
    uint64_t ended_ns;
    int version; /* index in the run's names */
};

/* Reads lines from a file, a FIFO, or "-" for standard input; NULL with a sentence. */
struct switches *switches_open(const char *path, struct err *err);
void switches_close(struct switches *s);

/* Takes what is there, without waiting. */
void switches_read(struct switches *s, struct names *names);

size_t switches_count(const struct switches *s);

/* True if the record contradicts the log. */
bool switches_contradicts(const struct switches *s, const struct record *r);
