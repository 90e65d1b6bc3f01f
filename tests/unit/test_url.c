/*
 * URLs, percent-encoding and addresses.
 */
#include "http/address.h"
#include "http/url.h"

#include "test.h"

static void split(void **state)
{
    static const struct {
        const char *url, *address, *prefix, *error;
    } cases[] = {
        {"http://127.0.0.1:8000", "127.0.0.1:8000", "", NULL},
        {"http://127.0.0.1:8000/", "127.0.0.1:8000", "", NULL},
        {"HTTP://host", "host:80", "", NULL},
        {"http://host/base/v1//", "host:80", "/base/v1", NULL},
        {"http://[::1]:9/x", "[::1]:9", "/x", NULL},
        {"http://[::1]", "[::1]:80", "", NULL},
        {"unix:/run/x.sock", "unix:/run/x.sock", "", NULL},
        {"unix:relative", "unix:relative", "", NULL},
        {"unix:", NULL, NULL, "path of the socket is missing"},
        {"https://host", NULL, NULL, "neither http:// nor unix:"},
        {"host:80", NULL, NULL, "neither http:// nor unix:"},
        {"", NULL, NULL, "neither http:// nor unix:"},
        {"http://", NULL, NULL, "host is missing"},
        {"http:///x", NULL, NULL, "host is missing"},
        {"http://:80", NULL, NULL, "host is missing"},
        {"http://[::1", NULL, NULL, "host is missing"},
        {"http://[::1]x", NULL, NULL, "host is not valid"},
        {"http://h:", NULL, NULL, "port is not a number"},
        {"http://h:0", NULL, NULL, "port is not a number"},
        {"http://h:65536", NULL, NULL, "port is not a number"},
        {"http://h:80a", NULL, NULL, "port is not a number"},
        {"http://a:b@h/", NULL, NULL, "user information"},
        {"http://h/?q", NULL, NULL, "query or a fragment"},
        {"http://h/a b", NULL, NULL, "white space"},
    };
    char address[ADDRESS_TEXT_MAX], prefix[ADDRESS_TEXT_MAX];
    struct err err;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int rc = url_split(cases[i].url, address, prefix, &err);
        if (rc != (cases[i].error ? -1 : 0))
            fail_msg("%s: %s", cases[i].url, rc ? err.text : "accepted");
        if (cases[i].error) {
            assert_non_null(strstr(err.text, cases[i].error));
            assert_non_null(strstr(err.text, cases[i].url));
        } else {
            assert_string_equal(address, cases[i].address);
            assert_string_equal(prefix, cases[i].prefix);
        }
    }

    /* At the edge of what fits, and beyond it. */
    char url[400];
    for (size_t n = ADDRESS_TEXT_MAX - 10; n < ADDRESS_TEXT_MAX + 10; n++) {
        memset(url, 'h', sizeof(url));
        memcpy(url, "http://", 7);
        url[7 + n] = '\0'; /* the address is HOST:80 */
        assert_int_equal(url_split(url, address, prefix, &err), n + 3 < ADDRESS_TEXT_MAX ? 0 : -1);
        memcpy(url + 7, "h/", 2); /* the prefix has a byte less than the rest */
        assert_int_equal(url_split(url, address, prefix, &err), n - 1 < ADDRESS_TEXT_MAX ? 0 : -1);
        memcpy(url, "unix:", 5);
        assert_int_equal(url_split(url, address, prefix, &err), n + 7 < ADDRESS_TEXT_MAX ? 0 : -1);
    }
}

static void decode(void **state)
{
    char out[8];

    assert_true(url_decode(SPAN_LIT("a%20%e4+"), out, sizeof(out)));
    assert_string_equal(out, "a \xe4+");
    assert_true(url_decode(SPAN_LIT(""), out, 1));
    assert_string_equal(out, "");
    assert_true(url_decode(SPAN_LIT("1234567"), out, sizeof(out)));
    assert_false(url_decode(SPAN_LIT("12345678"), out, sizeof(out)));
    assert_false(url_decode(SPAN_LIT(""), out, 0));
    assert_false(url_decode(SPAN_LIT("%"), out, sizeof(out)));
    assert_false(url_decode(SPAN_LIT("%2"), out, sizeof(out)));
    assert_false(url_decode(SPAN_LIT("%2x"), out, sizeof(out)));
    assert_false(url_decode(SPAN_LIT("%00"), out, sizeof(out)));
    assert_false(url_decode(span_of("a\0b", 3), out, sizeof(out)));
}

static void addresses(void **state)
{
    struct address a;
    struct err err;
    struct sockaddr_storage where;

    assert_int_equal(address_parse("127.0.0.1:80", &a, &err), 0);
    assert_true(address_numeric(&a, &where) && where.ss_family == AF_INET && a.port == 80);
    assert_int_equal(address_parse("[::1]:65535", &a, &err), 0);
    assert_true(address_numeric(&a, &where) && where.ss_family == AF_INET6);
    assert_int_equal(address_parse("name.example:1", &a, &err), 0);
    assert_false(address_numeric(&a, &where));
    assert_string_equal(a.host, "name.example");
    assert_int_equal(address_parse("unix:/x", &a, &err), 0);
    assert_true(a.is_unix);
    assert_string_equal(a.path.sun_path, "/x");

    char longest[128] = "unix:";
    memset(longest + 5, 'x', 107);
    assert_int_equal(address_parse(longest, &a, &err), 0);
    longest[5 + 107] = 'x';
    assert_int_equal(address_parse(longest, &a, &err), -1);
    assert_non_null(strstr(err.text, "107"));
    const char *bad[] = {"unix:", "host", ":80", "h:", "h:x", "h:65536", "::1:80", "[]:80", "h:-1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(address_parse(bad[i], &a, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split),
        cmocka_unit_test(decode),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
