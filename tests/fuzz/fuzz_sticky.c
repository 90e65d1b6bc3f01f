/*
 * The first message of a conversation: for every body that the JSON scanner
 * lets in, sticky_first() stays inside the value and finds what jansson finds;
 * and the number does not depend on what comes behind that message.
 */
#include <stdlib.h>

#include "base/buf.h"
#include "first_reference.h"
#include "gateway/sticky.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_same_number(struct span first, uint64_t want)
{
    struct buf longer = {0};

    buf_add_str(&longer, "[ ");
    buf_add_span(&longer, first);
    buf_add_str(&longer, "\n,{\"role\":\"user\",\"content\":\"]\"}]");
    ALWAYS(sticky_number(&(struct sticky_source){.messages = buf_span(&longer)}) == want);
    buf_fini(&longer);
}

static void check_value(const struct json_member *messages)
{
    /* A copy with nothing readable behind it. */
    struct span value = messages->value;
    char *copy = malloc(value.n);
    memcpy(copy, value.p, value.n);
    struct span array = span_of(copy, value.n), first = sticky_first(array);
    uint64_t number = sticky_number(&(struct sticky_source){.messages = array});

    ALWAYS((number != 0) == (first.n != 0));
    if (first.n) {
        ALWAYS(messages->kind == JSON_ARRAY);
        ALWAYS(first.p > array.p && first.p + first.n < array.p + array.n);
        check_same_number(first, number);
    }
    enum first says = first_reference(array.p, array.n, first.p, first.n);
    ALWAYS(says == FIRST_LIMIT || says == (first.n ? FIRST_SAME : FIRST_NONE));
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct json_member members[] = {{"messages"}, {"user"}, {"prompt"}};
    size_t at;

    if (json_scan(span_of((const char *)data, n), members, 3, &at, NULL) != JSON_NONE)
        return 0;
    if (members[0].kind != JSON_ABSENT)
        check_value(&members[0]);

    struct sticky_source s = {
        .user = members[1].value, .messages = members[0].value, .prompt = members[2].value};
    uint64_t number = sticky_number(&s);
    ALWAYS(sticky_number(&s) == number);
    ALWAYS(number || (members[1].value.n <= 2 && members[2].kind == JSON_ABSENT));
    return 0;
}
