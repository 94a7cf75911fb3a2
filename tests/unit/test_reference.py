from triton_diffusers import reference
from triton_diffusers.settings import Settings


def test_committed_page_is_what_the_tables_give() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make generated`"


def test_every_setting_is_described() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
