/*
 * The route table: what a message may say, which name means what, and what is
 * said about it.
 */
#include <arpa/inet.h>
#include <jansson.h>

#include "gateway/counters.h"
#include "gateway_message.h"

/* --- refusals ------------------------------------------------------------------ */

/* The good message with the first `from` replaced by `to`; the caller frees it. */
static char *with(const char *from, const char *to)
{
    char *good = message_text(7, "", HY "," OTHER), *want = str_dup(from), *put = str_dup(to);

    quotes(want);
    quotes(put);
    char *at = strstr(good, want);
    assert_non_null(at);
    char *text = str_fmt("%.*s%s%s", (int)(at - good), good, put, at + strlen(want));
    free(want);
    free(put);
    free(good);
    return text;
}

static void refused(const char *from, const char *to, const char *sentence)
{
    struct err err = {0};
    char *text = with(from, to);
    struct table *t = table_parse(span_str(text), NULL, &err);

    if (t || err.status != 400 || strcmp(err.text, sentence) != 0)
        fail_msg("%s -> %s: %s %d %s", from, to, t ? "accepted" : "refused", err.status, err.text);
    free(text);
}

static void refusals(void **state)
{
    static const struct {
        const char *from, *to, *sentence;
    } cases[] = {
        {"'epoch':7", "'epoch':-7", "table: 'epoch' must be a number that is not negative"},
        {"'epoch':7", "'epoch':'7'", "table: 'epoch' must be a number that is not negative"},
        {"'epoch':7", "'epoch':7.5", "table: 'epoch' must be a number that is not negative"},
        {"'limits':", "'limit':", "table: 'head_bytes' must be a number that is not negative"},
        {"'timeouts':", "'x':", "table: 'head' must be a number that is not negative"},
        {"'name':'hy-mt'", "'name':7", "table: 'name' must be a string"},
        {"'hold_ms':30000", "'hold_ms':null",
         "table: 'hold_ms' must be a number that is not negative"},
        {"'hold_max':8", "'hold_max':true",
         "table: 'hold_max' must be a number that is not negative"},
        {"'name':'v2'", "'nam':'v2'", "table: 'name' must be a string"},
        {"'weight':0", "'weight':-1", "table: 'weight' must be a number that is not negative"},
        {"'slot':4", "'slot':'4'", "hy-mt@v2: table: 'slot' must be a number that is not negative"},
        {"'slot':4", "'slot':4096", "hy-mt@v2: table: slot 4096 is not below 4096"},
        {"'slot':4", "'slot':4294967296", "hy-mt@v2: table: slot 4294967296 is not below 4096"},
        {"'address':'127.0.0.1:8001'", "'address':1",
         "hy-mt@v2: table: 'address' must be a string"},
        {"'prefix':''", "'prefix':null", "hy-mt@v1: table: 'prefix' must be a string"},
        {"'serve_as':'served'", "'serve':'served'", "hy-mt@v2: table: 'serve_as' must be a string"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        refused(cases[i].from, cases[i].to, cases[i].sentence);

    static const char *const numbers[] = {
        "head_bytes", "body_bytes", "connections",   "client_buffer_bytes",
        "head",       "body",       "idle",          "send",
        "connect",    "first_byte", "between_bytes", "upstream_idle",
    };
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        char from[64], negative[64], other[64], sentence[128];
        snprintf(from, sizeof(from), "'%s':", numbers[i]);
        snprintf(negative, sizeof(negative), "'%s':-", numbers[i]);
        snprintf(other, sizeof(other), "'no_%s':", numbers[i]);
        snprintf(sentence, sizeof(sentence), "table: '%s' must be a number that is not negative",
                 numbers[i]);
        refused(from, negative, sentence);
        refused(from, other, sentence);
    }
}

static void not_json(void **state)
{
    static const char *const texts[] = {"", "{", "[1,2", "\"x\"", "{\"epoch\":1,\"epoch\":2}"};
    struct err err;

    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        assert_null(table_parse(span_str(texts[i]), NULL, &err));
        assert_int_equal(err.status, 400);
        assert_non_null(strstr(err.text, "table: not JSON: "));
    }
    /* JSON, but nothing of a table. */
    assert_null(table_parse(span_str("[]"), NULL, &err));
    assert_null(table_parse(span_str("{}"), NULL, &err));
    assert_string_equal(err.text, "table: 'epoch' must be a number that is not negative");
    assert_null(table_parse(span_str("{}"), NULL, NULL)); /* nobody asks why */
}

/* --- addresses ------------------------------------------------------------------- */

#define PATH_107                                         \
    "/2345678901234567890123456789012345678901234567890" \
    "123456789012345678901234567890123456789012345678901234567"

static void addresses_good(void **state)
{
    static const struct {
        const char *address;
        int family;
        const char *host;
        int port;
    } cases[] = {
        {"127.0.0.1:8001", AF_INET, "127.0.0.1", 8001},
        {"10.1.2.3:65535", AF_INET, "10.1.2.3", 65535},
        {"localhost:1", AF_INET, "127.0.0.1", 1},
        {"[::1]:8000", AF_INET6, "::1", 8000},
        {"[2001:db8::a:1]:443", AF_INET6, "2001:db8::a:1", 443},
        {"unix:/run/a b.sock", AF_UNIX, "/run/a b.sock", 0},
        {"unix:run/x:y.sock", AF_UNIX, "run/x:y.sock", 0},
        {"unix:" PATH_107, AF_UNIX, PATH_107, 0},
    };

    assert_int_equal(strlen(PATH_107), 107); /* as long as sun_path allows */
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = {0};
        char put[256], host[INET6_ADDRSTRLEN];
        snprintf(put, sizeof(put), "'address':'%s'", cases[i].address);
        char *text = with("'address':'127.0.0.1:8001'", put);
        struct table *t = table_parse(span_str(text), NULL, &err);
        if (!t)
            fail_msg("%s: %s", cases[i].address, err.text);
        const struct replica_route *r = &t->models[0]->versions[1].replicas[0];
        assert_string_equal(r->address, cases[i].address);
        assert_int_equal(r->sock.any.sa_family, cases[i].family);
        switch (r->sock.any.sa_family) {
        case AF_UNIX:
            assert_string_equal(r->sock.un.sun_path, cases[i].host);
            assert_int_equal(r->sock_len, sizeof(r->sock.un));
            break;
        case AF_INET:
            assert_string_equal(inet_ntop(AF_INET, &r->sock.in.sin_addr, host, sizeof(host)),
                                cases[i].host);
            assert_int_equal(ntohs(r->sock.in.sin_port), cases[i].port);
            assert_int_equal(r->sock_len, sizeof(r->sock.in));
            break;
        default:
            assert_string_equal(inet_ntop(AF_INET6, &r->sock.in6.sin6_addr, host, sizeof(host)),
                                cases[i].host);
            assert_int_equal(ntohs(r->sock.in6.sin6_port), cases[i].port);
            assert_int_equal(r->sock_len, sizeof(r->sock.in6));
        }
        table_unref(t);
        free(text);
    }
}

static void addresses_bad(void **state)
{
    static const struct {
        const char *address, *sentence;
    } cases[] = {
        {"", "'' is not HOST:PORT"},
        {"127.0.0.1", "'127.0.0.1' is not HOST:PORT"},
        {"127.0.0.1:", "'127.0.0.1:' is not HOST:PORT"},
        {"127.0.0.1:0", "'127.0.0.1:0' is not HOST:PORT"},
        {"127.0.0.1:65536", "'127.0.0.1:65536' is not HOST:PORT"},
        {"127.0.0.1:+80", "'127.0.0.1:+80' is not HOST:PORT"},
        {"127.0.0.1:80 ", "'127.0.0.1:80 ' is not HOST:PORT"},
        {"[::1]", "'[::1]' is not HOST:PORT"},
        {":80", "':80' has no numeric host"},
        {PATH_107 ":80", "'" PATH_107 ":80' has no numeric host"},
        {"engine.example:80", "the host in 'engine.example:80' must be an IP address"},
        {"256.0.0.1:80", "the host in '256.0.0.1:80' must be an IP address"},
        {"[]:80", "the host in '[]:80' must be an IP address"},
        {"[::1:80", "the host in '[::1:80' must be an IP address"},
        {"unix:", "the socket path 'unix:' is empty or too long"},
        {"unix:" PATH_107 "8", "the socket path 'unix:" PATH_107 "8' is empty or too long"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char put[256], sentence[300];
        snprintf(put, sizeof(put), "'address':'%s'", cases[i].address);
        snprintf(sentence, sizeof(sentence), "hy-mt@v2: table: %s", cases[i].sentence);
        refused("'address':'127.0.0.1:8001'", put, sentence);
    }
}

/* --- what a table holds ------------------------------------------------------------ */

static void limits(void **state)
{
    struct table *t = table_of(NULL, 7, "", HY "," OTHER);

    assert_int_equal(t->epoch, 7);
    assert_int_equal(t->limits.head_bytes, 16384);
    assert_int_equal(t->limits.body_bytes, 8388608);
    assert_int_equal(t->limits.connections, 20000);
    assert_int_equal(t->limits.client_buffer_bytes, 262144);
    /* An older manager does not send these: then there is no such limit. */
    assert_int_equal(t->limits.exchanges, UINT32_MAX);
    assert_int_equal(t->limits.client_connections, UINT32_MAX);
    assert_int_equal(t->limits.body_memory_bytes, SIZE_MAX);
    assert_int_equal(t->timeouts.head, UINT64_C(10000000000));
    assert_int_equal(t->timeouts.upstream_idle, UINT64_C(30000000000));
    assert_string_equal(t->sticky_header, "");
    assert_null(t->keyring);
    assert_int_equal(t->nslots, 6);
    assert_false(t->split);
    assert_int_equal(t->nmodels, 2);

    const struct model_route *m = t->models[0];
    assert_string_equal(m->name, "hy-mt");
    assert_int_equal(m->nslots, 5);
    assert_int_equal(m->hold_ns, UINT64_C(30000000000));
    assert_int_equal(m->hold_max, 8);
    assert_true(m->expected);
    assert_int_equal(m->created, 1760000000);
    assert_int_equal(m->total_weight, 1);
    assert_string_equal(m->versions[1].tag, "hy-mt@v2");
    assert_span(m->versions[1].replicas[0].serve_as, "\"served\"");
    assert_true(m->versions[1].replicas[0].ready);
    assert_false(t->models[1]->versions[0].replicas[0].ready);
    table_unref(t);

    char *text = with("'client_buffer_bytes':262144",
                      "'client_buffer_bytes':1,'exchanges':2,'client_connections':3,"
                      "'body_memory_bytes':4");
    t = table_parse(span_str(text), NULL, NULL);
    assert_non_null(t);
    assert_int_equal(t->limits.exchanges, 2);
    assert_int_equal(t->limits.client_connections, 3);
    assert_int_equal(t->limits.body_memory_bytes, 4);
    table_unref(t);
    free(text);

    t = table_of(NULL, 1, "'sticky_header':'X-Session',",
                 MODEL("m", "", VERSION("v1", "2", "") "," VERSION("v2", "1", "")));
    assert_string_equal(t->sticky_header, "X-Session");
    assert_true(t->split && t->models[0]->split);
    assert_int_equal(t->models[0]->total_weight, 3);
    table_unref(t);
}

/* --- names ------------------------------------------------------------------------- */

static void names(void **state)
{
    static const struct {
        const char *name, *means;
    } cases[] = {
        {"hy-mt", "hy-mt"},
        {"hunyuan", "hy-mt"},
        {"hy", "hy-mt"},
        {"served", "hy-mt"}, /* an engine's own name: the route decides all the same */
        {"hy-mt@v1-engine", "hy-mt"},
        {"hy-mt@v1", "hy-mt@v1"},
        {"hy-mt@v2", "hy-mt@v2"},
        {"other", "other"},
        {"other-as", "other"},
        {"other@a", "other@a"},
        {"", "-"},
        {"h", "-"},
        {"hy-mt ", "-"},
        {"Hy-mt", "-"},
        {"hy-mt@", "-"},
        {"hy-mt@v3", "-"},
        {"hunyuan@v1", "-"},
        {"@v1", "-"},
    };
    struct table *t = table_of(NULL, 7, "", HY "," OTHER);

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(meaning(t, cases[i].name), cases[i].means);
    table_unref(t);
}

/* Each name has several meanings here; the message's order must not matter. */
static void names_precedence(void **state)
{
    static const char a[] =
        MODEL("a", "'b','x','x@v1'", VERSION("v1", "1", REPLICA("1", "127.0.0.1:1", "b", "true")));
    static const char b[] =
        MODEL("b", "'a','y','s'", VERSION("v1", "1", REPLICA("2", "127.0.0.1:2", "x", "true")));
    static const char x[] =
        MODEL("c", "'a@v1'", VERSION("v1", "1", REPLICA("3", "127.0.0.1:3", "s", "true")));
    const char *orders[][3] = {{a, b, x}, {x, b, a}, {b, x, a}, {a, x, b}};

    for (size_t i = 0; i < COUNT_OF(orders); i++) {
        char *models = str_fmt("%s,%s,%s", orders[i][0], orders[i][1], orders[i][2]);
        struct table *t = table_of(NULL, 1, "", models);
        assert_string_equal(meaning(t, "a"), "a");       /* public name, not b's alias */
        assert_string_equal(meaning(t, "b"), "b");       /* ... nor a's engine's name */
        assert_string_equal(meaning(t, "x"), "a");       /* alias, not b's engine's name */
        assert_string_equal(meaning(t, "s"), "b");       /* alias, not c's engine's name */
        assert_string_equal(meaning(t, "a@v1"), "a@v1"); /* version, not c's alias */
        assert_string_equal(meaning(t, "x@v1"), "a");    /* an alias as it was written */
        table_unref(t);
        free(models);
    }
}

static void roles(void **state)
{
    static const char *const both[] = {"hy-mt@champion", "hy-mt@stable"};
    static const char *const next[] = {"hy-mt@challenger", "hy-mt@canary"};
    static const struct {
        const char *weights[3];
        const char *ready[3];
        const char *champion, *challenger;
    } cases[] = {
        {{"1", "0", "0"}, {"true", "true", "true"}, "hy-mt@v1", "hy-mt@v3"},
        {{"1", "0", "0"}, {"true", "true", "false"}, "hy-mt@v1", "hy-mt@v2"},
        {{"1", "0", "0"}, {"true", "false", "false"}, "hy-mt@v1", "-"},
        {{"0", "0", "1"}, {"true", "true", "true"}, "hy-mt@v3", "hy-mt@v2"},
        {{"90", "0", "10"}, {"true", "false", "true"}, "hy-mt@v1", "hy-mt@v3"},
        {{"40", "0", "60"}, {"true", "false", "true"}, "hy-mt@v3", "hy-mt@v1"},
        {{"50", "50", "0"}, {"true", "true", "true"}, "hy-mt@v1", "hy-mt@v3"},
        {{"1", "0", "0"}, {"false", "false", "false"}, "hy-mt@v1", "-"},
        {{"0", "0", "0"}, {"true", "true", "false"}, "-", "hy-mt@v2"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf models = {0};
        buf_add_str(&models, "{'name':'hy-mt','hold_ms':0,'hold_max':0,'versions':[");
        for (int v = 0; v < 3; v++)
            buf_addf(&models,
                     "%s{'name':'v%d','weight':%s,'replicas':[{'slot':%d,'address':'127.0.0.1:1',"
                     "'prefix':'','serve_as':'s','ready':%s}]}",
                     v ? "," : "", v + 1, cases[i].weights[v], v, cases[i].ready[v]);
        buf_add_str(&models, "]}");
        struct table *t = table_of(NULL, 1, "", buf_cstr(&models));
        for (int k = 0; k < 2; k++) {
            assert_string_equal(meaning(t, both[k]), cases[i].champion);
            assert_string_equal(meaning(t, next[k]), cases[i].challenger);
        }
        table_unref(t);
        buf_fini(&models);
    }

    /* A version that is called so is that version; an alias has no roles. */
    struct table *t =
        table_of(NULL, 1, "",
                 MODEL("m", "'n'",
                       VERSION("v1", "1", REPLICA("1", "127.0.0.1:1", "s", "true")) "," VERSION(
                           "champion", "0", "")));
    assert_string_equal(meaning(t, "m@champion"), "m@champion");
    assert_string_equal(meaning(t, "m@stable"), "m@v1");
    assert_string_equal(meaning(t, "n@stable"), "-");
    table_unref(t);
}

static void names_of_many(void **state)
{
    char *models = many_models();
    struct table *t = table_of(NULL, 1, "", models);
    struct table_match match;
    char name[64];

    for (unsigned i = 0; i < MANY; i++) {
        static const char *const forms[] = {"model-%u", "alias-%u", "engine-%u", "model-%u@v1",
                                            "model-%u@stable"};
        for (size_t f = 0; f < COUNT_OF(forms); f++) {
            snprintf(name, sizeof(name), forms[f], i);
            assert_true(table_find(t, span_str(name), &match));
            assert_int_equal(match.model->index, i);
            assert_true((match.version != NULL) == (f >= 3));
        }
        snprintf(name, sizeof(name), "model-%u", i + MANY);
        assert_false(table_find(t, span_str(name), &match));
    }
    table_unref(t);
    free(models);
}

/* --- for people ----------------------------------------------------------------------- */

static void models_json(void **state)
{
    struct table *t = table_of(
        NULL, 1, "",
        MODEL("hy-mt", "",
              VERSION("v1", "2", REPLICA("1", "127.0.0.1:1", "s", "true")) "," VERSION(
                  "v2", "1",
                  REPLICA("2", "127.0.0.1:2", "s",
                          "false"))) "," MODEL("a\\\\b", "",
                                               VERSION("v1", "0", "")) "," MODEL("bare", "", ""));
    struct buf out = {0};

    table_models_json(t, &out);
    assert_span(
        buf_span(&out),
        "{\"object\":\"list\",\"data\":[{\"id\":\"hy-mt\",\"object\":\"model\","
        "\"created\":1760000000,\"owned_by\":\"segue\",\"versions\":["
        "{\"id\":\"hy-mt@v1\",\"share\":0.6667,\"ready\":true},"
        "{\"id\":\"hy-mt@v2\",\"share\":0.3333,\"ready\":false}]},"
        "{\"id\":\"a\\\\b\",\"object\":\"model\",\"created\":1760000000,\"owned_by\":\"segue\","
        "\"versions\":[{\"id\":\"a\\\\b@v1\",\"share\":0,\"ready\":false}]},"
        "{\"id\":\"bare\",\"object\":\"model\",\"created\":1760000000,\"owned_by\":\"segue\","
        "\"versions\":[]}]}\n");
    json_t *json = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    json_decref(json);
    buf_fini(&out);
    table_unref(t);

    t = table_of(NULL, 1, "", "");
    table_models_json(t, &out);
    assert_span(buf_span(&out), "{\"object\":\"list\",\"data\":[]}\n");
    buf_fini(&out);
    table_unref(t);
}

static void names_text(void **state)
{
    static const struct {
        int models;
        const char *begin, *end;
    } cases[] = {
        {0, "", ""},
        {1, "m0", "m0"},
        {2, "m0, m1", "m0, m1"},
        {20, "m0, m1, ", ", m18, m19"},
        {21, "m0, m1, ", ", m19 and 1 more (GET /v1/models)"},
        {50, "m0, m1, ", ", m19 and 30 more (GET /v1/models)"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf models = {0}, out = {0};
        for (int m = 0; m < cases[i].models; m++)
            buf_addf(&models, "%s{'name':'m%d','hold_ms':0,'hold_max':0}", m ? "," : "", m);
        struct table *t = table_of(NULL, 1, "", buf_cstr(&models));
        table_names_text(t, &out);
        const char *text = buf_cstr(&out);
        assert_memory_equal(text, cases[i].begin, strlen(cases[i].begin));
        assert_true(strlen(text) >= strlen(cases[i].end));
        assert_string_equal(text + strlen(text) - strlen(cases[i].end), cases[i].end);
        table_unref(t);
        buf_fini(&models);
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),         cmocka_unit_test(not_json),
        cmocka_unit_test(addresses_good),   cmocka_unit_test(addresses_bad),
        cmocka_unit_test(limits),           cmocka_unit_test(names),
        cmocka_unit_test(names_precedence), cmocka_unit_test(roles),
        cmocka_unit_test(names_of_many),    cmocka_unit_test(models_json),
        cmocka_unit_test(names_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
