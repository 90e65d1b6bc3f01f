/* messages - see messages.h. */
#include "engine/messages.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"

enum { MESSAGES_MAX = 4096 };

static struct span text_of(json_t *string)
{
    return span_of(json_string_value(string), json_string_length(string));
}

/* [{"type":"text","text":"..."}, ...] joined. */
static int read_parts(struct buf *out, json_t *parts, size_t at, struct err *err)
{
    size_t i;
    json_t *part;

    json_array_foreach(parts, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        json_t *text = json_object_get(part, "text");
        if (!type || strcmp(type, "text") != 0)
            return err_set(err, 400,
                           "messages[%zu].content[%zu].type is \"%.40s\"; only \"text\" is "
                           "supported",
                           at, i, type ? type : "missing");
        if (!json_is_string(text))
            return err_set(err, 400, "messages[%zu].content[%zu].text must be a string", at, i);
        buf_add_span(out, text_of(text));
    }
    return 0;
}

static int read_role(enum message_role *role, json_t *message, size_t at, struct err *err)
{
    const char *name = json_string_value(json_object_get(message, "role"));

    if (!name)
        return err_set(err, 400, "messages[%zu].role must be \"system\", \"user\" or \"assistant\"",
                       at);
    if (strcmp(name, "user") == 0)
        *role = ROLE_USER;
    else if (strcmp(name, "assistant") == 0)
        *role = ROLE_ASSISTANT;
    else if (strcmp(name, "system") == 0 || strcmp(name, "developer") == 0)
        *role = ROLE_SYSTEM;
    else
        return err_set(err, 400,
                       "messages[%zu].role is \"%.40s\"; \"system\", \"user\" and \"assistant\" "
                       "are supported",
                       at, name);
    if (*role == ROLE_SYSTEM && at)
        return err_set(err, 400, "messages[%zu].role is \"%s\"; only the first message may be one",
                       at, name);
    return 0;
}

static int read_one(struct messages *out, json_t *message, size_t at, struct err *err)
{
    json_t *content = json_object_get(message, "content");

    if (!json_is_object(message))
        return err_set(err, 400, "messages[%zu] must be an object with role and content", at);
    if (read_role(&out->m[at].role, message, at, err))
        return -1;
    if (json_array_size(json_object_get(message, "tool_calls")))
        return err_set(err, 400, "messages[%zu].tool_calls: tools are not supported", at);
    if (json_is_string(content)) {
        out->m[at].text = text_of(content);
        return 0;
    }
    if (!json_is_array(content))
        return err_set(err, 400, "messages[%zu].content must be a string or an array of text parts",
                       at);
    if (read_parts(&out->joined[at], content, at, err))
        return -1;
    out->m[at].text = buf_span(&out->joined[at]);
    return 0;
}

int messages_read(struct messages *out, json_t *array, char *field, size_t room, struct err *err)
{
    size_t n = json_array_size(array);

    snprintf(field, room, "messages");
    *out = (struct messages){0};
    if (!json_is_array(array) || n == 0)
        return err_set(err, 400, "messages must be an array with at least one message");
    if (n > MESSAGES_MAX)
        return err_set(err, 400, "messages has %zu entries; at most %d are taken", n, MESSAGES_MAX);
    out->m = mem_zero(n * sizeof(out->m[0]));
    out->joined = mem_zero(n * sizeof(out->joined[0]));
    out->n = n;
    for (size_t i = 0; i < n; i++)
        if (read_one(out, json_array_get(array, i), i, err)) {
            messages_fini(out);
            return -1;
        }
    return 0;
}

void messages_fini(struct messages *m)
{
    for (size_t i = 0; i < m->n; i++)
        buf_fini(&m->joined[i]);
    free(m->joined);
    free(m->m);
    *m = (struct messages){0};
}
