#include "rollout/text.h"

#include "base/buf.h"
#include "base/utf8.h"

json_t *text_json(const char *s)
{
    struct buf clean = {0};
    size_t left;

    if (!s)
        return json_null();
    json_t *json = json_string(s); /* NULL if it is not UTF-8 */
    if (json)
        return json;
    for (left = strlen(s); left;) {
        size_t n = utf8_length(s, left);

        buf_add(&clean, n ? s : "\xEF\xBF\xBD", n ? n : 3);
        n += !n;
        s += n;
        left -= n;
    }
    json = json_string(buf_cstr(&clean));
    ALWAYS(json);
    buf_fini(&clean);
    return json;
}

json_t *text_json_or_null(const char *s)
{
    return s && *s ? text_json(s) : json_null();
}
