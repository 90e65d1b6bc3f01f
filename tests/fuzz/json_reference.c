/* json_reference - see json_reference.h. */
#include "json_reference.h"

#include <jansson.h>
#include <string.h>

enum reference reference_scan(const char *p, size_t n, bool *is_string, char *model, size_t room,
                              size_t *length)
{
    json_error_t error;
    json_t *json =
        json_loadb(p, n, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);

    *is_string = false;
    /* jansson 2.14 loses a NUL byte behind a number or a word ("true\0"); no
     * JSON text has one (RFC 8259 section 2). */
    if (n && memchr(p, '\0', n)) {
        json_decref(json);
        return REFERENCE_REFUSES;
    }
    if (!json) {
        /* The other differences, all of them: jansson has no number beyond a double,
         * no object key with U+0000, and no string with a lone surrogate
         * ("invalid Unicode '\ud800'"). */
        enum json_error_code code = json_error_code(&error);
        return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
                       strncmp(error.text, "invalid Unicode", 15) == 0
                   ? REFERENCE_LIMIT
                   : REFERENCE_REFUSES;
    }
    json_t *value = json_object_get(json, "model");
    if (json_is_string(value)) {
        *is_string = true;
        *length = json_string_length(value);
        if (*length < room)
            memcpy(model, json_string_value(value), *length + 1);
    }
    json_decref(json);
    return REFERENCE_ACCEPTS;
}
