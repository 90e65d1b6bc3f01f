/*
 * Changes of the route table: what a table shares with the one before it, what
 * is refused, and that nothing is freed too early or never (the sanitizers
 * look on).
 */
#include "gateway/keyring.h"
#include "gateway_message.h"

#define HY_SWITCHED                                                    \
    MODEL("hy-mt", "'hunyuan','hy'",                                   \
          VERSION("v1", "0",                                           \
                  REPLICA("3", "unix:/run/v1.sock", "hy-mt@v1-engine", \
                          "true")) "," VERSION("v2", "1",              \
                                               REPLICA("4", "127.0.0.1:8001", "served", "true")))
#define HY_THIRD                                                                                   \
    MODEL("hy-mt", "'hunyuan'",                                                                    \
          VERSION(                                                                                 \
              "v1", "0",                                                                           \
              REPLICA("3", "unix:/run/v1.sock", "hy-mt@v1-engine",                                 \
                      "true")) "," VERSION("v2", "1",                                              \
                                           REPLICA("4", "127.0.0.1:8001", "served",                \
                                                   "true")) "," VERSION("v3", "0",                 \
                                                                        REPLICA(                   \
                                                                            "9", "127.0.0.1:8003", \
                                                                            "served-3", "true")))
#define NEW_MODEL MODEL("new", "'neu'", VERSION("v1", "1", ""))

static void changes(void **state)
{
    struct table *first = table_of(NULL, 7, "", HY "," OTHER);

    /* A switch: the other model and the index of names are shared. */
    struct table *second = table_change(first, HY_SWITCHED);
    assert_int_equal(second->epoch, 8);
    assert_int_equal(second->nmodels, 2);
    assert_ptr_equal(second->models[1], first->models[1]);
    assert_ptr_not_equal(second->models[0], first->models[0]);
    assert_ptr_equal(second->names, first->names);
    assert_int_equal(first->models[0]->versions[0].weight, 1);
    assert_int_equal(second->models[0]->versions[0].weight, 0);
    assert_int_equal(second->models[0]->index, 0);
    assert_string_equal(meaning(second, "hy"), "hy-mt");
    assert_string_equal(meaning(first, "hy-mt@champion"), "hy-mt@v1");
    assert_string_equal(meaning(second, "hy-mt@champion"), "hy-mt@v2");

    /* A third version, an alias less: a new index, for this table only. */
    struct table *third = table_change(second, HY_THIRD);
    assert_ptr_not_equal(third->names, second->names);
    assert_ptr_equal(third->models[1], first->models[1]);
    assert_string_equal(meaning(third, "hy-mt@v3"), "hy-mt@v3");
    assert_string_equal(meaning(third, "served-3"), "hy-mt");
    assert_string_equal(meaning(third, "hy"), "-");
    assert_string_equal(meaning(second, "hy-mt@v3"), "-");
    assert_string_equal(meaning(second, "hy"), "hy-mt");
    assert_int_equal(third->nslots, 10);

    /* A new model comes last; the others keep their places. */
    struct table *fourth = table_change(third, NEW_MODEL);
    assert_int_equal(fourth->nmodels, 3);
    assert_ptr_equal(fourth->models[0], third->models[0]);
    assert_ptr_equal(fourth->models[1], third->models[1]);
    assert_int_equal(fourth->models[2]->index, 2);
    assert_string_equal(meaning(fourth, "neu"), "new");
    assert_string_equal(meaning(fourth, "new@v1"), "new@v1");
    assert_string_equal(meaning(third, "neu"), "-");

    /* Nothing changed. */
    struct table *fifth = table_change(fourth, "");
    assert_int_equal(fifth->nmodels, 3);
    assert_ptr_equal(fifth->names, fourth->names);
    for (int i = 0; i < 3; i++)
        assert_ptr_equal(fifth->models[i], fourth->models[i]);
    assert_int_equal(fifth->nslots, 10);

    /* A whole table shares nothing, whatever there was. */
    struct table *sixth = table_of(fifth, 12, "", OTHER);
    assert_int_equal(sixth->nmodels, 1);
    assert_ptr_not_equal(sixth->models[0], fifth->models[1]);
    assert_string_equal(meaning(sixth, "hy-mt"), "-");

    table_unref(sixth);
    table_unref(first);
    table_unref(third);
    table_unref(fifth);
    table_unref(second);
    table_unref(fourth);
}

/* An engine's new name for the model needs a new index; a new address does not. */
static void changes_of_replicas(void **state)
{
    struct table *first = table_of(NULL, 1, "", HY "," OTHER);
    struct table *moved = table_change(
        first, MODEL("other", "", VERSION("a", "1", REPLICA("6", "[::1]:9", "other-as", "true"))));
    struct table *renamed = table_change(
        moved, MODEL("other", "", VERSION("a", "1", REPLICA("6", "[::1]:9", "o2", "true"))));

    assert_ptr_equal(moved->names, first->names);
    assert_ptr_not_equal(renamed->names, first->names);
    assert_string_equal(meaning(renamed, "o2"), "other");
    assert_string_equal(meaning(renamed, "other-as"), "-");
    assert_string_equal(meaning(moved, "other-as"), "other");
    table_unref(first);
    table_unref(moved);
    table_unref(renamed);
}

static void refused_change(const struct table *base, unsigned since, const char *models, int status,
                           const char *sentence)
{
    struct err err = {0};
    char more[32];

    snprintf(more, sizeof(more), "'base':%u,", since);
    char *text = message_text(9, more, models);
    assert_null(table_parse(span_str(text), base, &err));
    assert_string_equal(err.text, sentence);
    assert_int_equal(err.status, status);
    free(text);
}

static void changes_refused(void **state)
{
    struct table *t = table_of(NULL, 7, "", HY "," OTHER);

    refused_change(t, 6, "", 409, "table: it is a change of epoch 6, but the table here is 7");
    refused_change(t, 8, HY, 409, "table: it is a change of epoch 8, but the table here is 7");
    refused_change(NULL, 7, HY, 409, "table: it is a change of epoch 7, but the table here is 0");
    refused_change(t, 7, HY_SWITCHED "," NEW_MODEL ",{'name':'bad'}", 400,
                   "table: 'hold_ms' must be a number that is not negative");
    refused_change(t, 7, HY_SWITCHED "," MODEL("new", "", VERSION("v", "1", "{'slot':1}")), 400,
                   "new@v: table: 'address' must be a string");

    /* The table that is here has not felt any of it. */
    assert_int_equal(atomic_load(&t->models[0]->refs), 1);
    assert_int_equal(atomic_load(&t->models[1]->refs), 1);
    assert_int_equal(t->nmodels, 2);
    assert_string_equal(meaning(t, "hy-mt"), "hy-mt");
    assert_string_equal(meaning(t, "new"), "-");
    table_unref(t);
}

static void change_among_many(void **state)
{
    char *models = many_models();
    struct table *t = table_of(NULL, 1, "", models);
    struct table *next = table_change(
        t, MODEL("model-500", "'alias-500'",
                 VERSION("v1", "0", REPLICA("500", "127.0.0.1:1", "engine-500", "true"))));

    assert_int_equal(next->nmodels, MANY);
    assert_ptr_equal(next->names, t->names);
    for (int i = 0; i < MANY; i++)
        assert_true((next->models[i] == t->models[i]) == (i != 500));
    table_unref(t);
    assert_string_equal(meaning(next, "alias-500"), "model-500");
    assert_string_equal(meaning(next, "alias-999"), "model-999");
    table_unref(next);
    free(models);
}

/* Everything that can be read of a table is read. */
static void touch(const struct table *t)
{
    struct buf out = {0};

    table_models_json(t, &out);
    table_names_text(t, &out);
    assert_true(buf_pending(&out) > 0);
    buf_fini(&out);
    for (size_t i = 0; i < t->nmodels; i++)
        assert_string_equal(meaning(t, t->models[i]->name), t->models[i]->name);
}

enum { CHAIN = 6 };

/* A chain of changes; its tables end in this order, and those that are left are whole. */
static void chain_end(const unsigned order[CHAIN])
{
    struct table *t[CHAIN];
    unsigned left = (1u << CHAIN) - 1;

    t[0] = table_of(NULL, 1, "", HY "," OTHER);
    t[1] = table_change(t[0], HY_SWITCHED);
    t[2] = table_change(t[1], HY_THIRD);
    t[3] = table_change(t[2], NEW_MODEL "," HY_THIRD);
    t[4] = table_change(t[3], "");
    t[5] = table_ref(t[3]);
    for (int i = 0; i < CHAIN; i++) {
        table_unref(t[order[i]]);
        left &= ~(1u << order[i]);
        for (unsigned k = 0; k < CHAIN; k++)
            if (left & 1u << k)
                touch(t[k]);
    }
}

static void permute(unsigned order[CHAIN], unsigned n)
{
    if (n == CHAIN) {
        chain_end(order);
        return;
    }
    for (unsigned i = n; i < CHAIN; i++) {
        unsigned swap = order[n];
        order[n] = order[i];
        order[i] = swap;
        permute(order, n + 1);
        order[i] = order[n];
        order[n] = swap;
    }
}

/* All 720 of them. */
static void ends_in_any_order(void **state)
{
    unsigned order[CHAIN] = {0, 1, 2, 3, 4, 5};

    permute(order, 0);
    table_unref(NULL);
}

/* --- keys ------------------------------------------------------------------------ */

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"
#define KEYS(last) "'keys':[{'name':'ann','sha256':'" SHA last "','rate':5}],'keys_required':true,"

/* A change that does not name the keys leaves them; another one hands the meters on. */
static void keys(void **state)
{
    struct table *first = table_of(NULL, 1, KEYS("0"), HY);
    struct table *second = table_change(first, HY_SWITCHED);
    struct table *third = table_of(second, 3, "'base':2," KEYS("1"), "");
    struct table *fourth = table_of(third, 4, KEYS("2"), HY);
    struct table *fifth = table_of(fourth, 5, "'base':4,'keys':[],'keys_required':false,", "");
    struct table *sixth = table_change(fifth, HY_SWITCHED);

    assert_non_null(first->keyring);
    assert_ptr_equal(second->keyring, first->keyring);
    assert_ptr_not_equal(third->keyring, first->keyring);
    assert_ptr_equal(third->keyring->keys[0]->meter, first->keyring->keys[0]->meter);
    assert_ptr_equal(fourth->keyring->keys[0]->meter, first->keyring->keys[0]->meter);
    assert_null(fifth->keyring);
    assert_null(sixth->keyring);
    table_unref(first);
    table_unref(fifth);
    table_unref(third);
    assert_int_equal(atomic_load(&second->keyring->refs), 1);
    table_unref(second);
    assert_true(fourth->keyring->required);
    table_unref(fourth);
    table_unref(sixth);
}

static void keys_refused(void **state)
{
    struct table *t = table_of(NULL, 1, KEYS("0"), HY);
    struct err err = {0};
    char *text = message_text(2, "'base':1," KEYS("x"), HY_SWITCHED);

    assert_null(table_parse(span_str(text), t, &err));
    assert_string_equal(err.text, "table: the key 'ann' is not one");
    assert_int_equal(atomic_load(&t->keyring->refs), 1);
    assert_int_equal(atomic_load(&t->models[0]->refs), 1);
    free(text);
    table_unref(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes),           cmocka_unit_test(changes_of_replicas),
        cmocka_unit_test(changes_refused),   cmocka_unit_test(change_among_many),
        cmocka_unit_test(ends_in_any_order), cmocka_unit_test(keys),
        cmocka_unit_test(keys_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
