/*
 * rollout/text - JSON strings from text that came from outside (an engine's last words, a path),
 * which need not be UTF-8.
 */
#pragma once
#include <jansson.h>

/* New reference: a string in which malformed bytes became U+FFFD, or null for NULL. */
json_t *text_json(const char *s);

/* The same, but null for "" too. */
json_t *text_json_or_null(const char *s);
