/*
 * http/url - the few URLs that configuration and targets need.
 */
#pragma once
#include "base/err.h"
#include "base/span.h"

enum { ADDRESS_TEXT_MAX = 160 };

/* Splits "http://HOST[:PORT][/PREFIX]" or "unix:PATH" into an address in the form
 * "HOST:PORT" | "unix:PATH" and a path prefix without trailing slash ("" if none). */
int url_split(const char *url, char address[ADDRESS_TEXT_MAX], char prefix[ADDRESS_TEXT_MAX],
              struct err *err) MUST_CHECK;

/* Percent-decodes s into out (NUL-terminated); false if malformed, if it holds
 * a NUL byte, or if it does not fit. '+' stays '+'. */
bool url_decode(struct span s, char *out, size_t room);
