"""What the views of tokens are given to show."""

from cramdemo.ui.tokens import text_view, visible_texts


def test_control_characters_are_shown_as_pictures() -> None:
    class Speaker:
        def token_texts(self, token_ids: list[int]) -> list[str]:
            return ["a\n", "\x00\x1b", "<b>"]

    assert visible_texts(Speaker(), [1, 2, 3]) == ["a⏎\n", "␀␛", "<b>"]  # type: ignore[arg-type]


def test_two_views_of_text_have_their_own_places() -> None:
    assert [text_view().elem_id, text_view("gallery-decoded").elem_id] == ["decoded", "gallery-decoded"]
