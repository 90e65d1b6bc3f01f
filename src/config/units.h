/*
 * units - durations, sizes and shares as people write them, and back.
 *
 * A duration is a number with `ms`, `s`, `m`, `h` or `d`; without a unit it is
 * seconds (as in nginx and systemd).  A size is a number with `k`, `m`, `g` or
 * `KiB`, `MiB`, `GiB` (all powers of 1024, any case); without a unit it is
 * bytes.  `KB` and `MB` mean different things to different people and are
 * refused.  A share is a fraction (`0.05`) or a percentage (`5%`).
 */
#pragma once
#include "base/span.h"

enum { UNITS_TEXT_MAX = 32 };

/* false when the text is not one, or when it does not fit into 53 bits. */
bool duration_parse(struct span s, uint64_t *ms);
bool size_parse(struct span s, uint64_t *bytes);
bool share_parse(struct span s, double *share);

/* The shortest exact form: "90s", "10m", "16KiB", "5%". */
void duration_text(uint64_t ms, char out[UNITS_TEXT_MAX]);
void size_text(uint64_t bytes, char out[UNITS_TEXT_MAX]);
void share_text(double share, char out[UNITS_TEXT_MAX]);
