from html.parser import HTMLParser

from results.document.markup import definition_list, document, el, json_script, table

NASTY = "<script>alert(1)</script> & \"quotes\" 'single' </style> \x1b[31mred\x00"


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_text_and_attributes_never_become_markup():
    page = document([], [el("p", {"title": NASTY}, NASTY, el("b", None, NASTY), NASTY)])

    parsed = Tags(page)

    assert parsed.tags == ["html", "head", "body", "p", "b"]
    assert parsed.text.count("<script>alert(1)</script> & \"quotes\" 'single'") == 3
    assert "\x1b" not in page
    assert "\x00" not in page


def test_data_cannot_end_its_script():
    page = document([], [json_script("figure", {"text": NASTY})])

    assert page.count("</script>") == 1


def test_numbers_stay_on_a_line_with_their_units_but_commands_are_left_alone():
    page = document([], [el("p", None, "20 GiB at +2 % in 3 min 20 s, 4 samples"), el("code", None, "--x 20 GiB")])

    assert "20\u00a0GiB at +2\u00a0% in 3\u00a0min 20\u00a0s, 4 samples" in page
    assert "--x 20 GiB" in page


def test_a_table_heads_its_columns_and_rows_and_can_be_reached_by_keyboard():
    page = document([], [table("Trials", ["Trial", "MSE"], [["t1", "0.4"]], numeric=[1])])

    assert '<th scope="col">Trial</th><th scope="col" class="number">MSE</th>' in page
    assert '<th scope="row">t1</th><td class="number">0.4</td>' in page
    assert 'tabindex="0" role="region" aria-label="Trials"' in page


def test_children_may_be_nested_and_none():
    page = document([], [definition_list([("a", ["x", None, [el("b", None, "y")], "z"])], "print")])

    assert "<dt>a</dt><dd>x<b>y</b>z</dd>" in page
