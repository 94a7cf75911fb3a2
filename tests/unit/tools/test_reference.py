import json
import re

from tools import reference
from triton_diffusers.api.contract import CONTROL_INPUTS, INPUTS
from triton_diffusers.settings import Settings


def test_committed_page_is_what_the_tables_give() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make generated`"


def test_every_setting_is_described() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_defaults_are_each_settings_own() -> None:
    defaults = dict(re.findall(r"^\| `TRITON_DIFFUSERS_(\w+)` \| (.*?) \|", reference.page(), re.M))
    assert [name for name, default in defaults.items() if "temporary folder" in default] == ["RUNTIME_DIR"]
    assert "XDG_CACHE_HOME" in defaults["CACHE_DIR"]
    assert "HF_HUB_OFFLINE" in defaults["OFFLINE"]
    assert {defaults["LINK_ALLOW_HOSTS"], defaults["STORE_URL"]} == {"empty"}
    assert (defaults["STORE"], defaults["MAX_BATCH"]) == ("`results`", "`4`")


def test_committed_schema_is_what_the_tables_give() -> None:
    assert reference.SCHEMA.read_text() == reference.schema_text(), "run `make generated`"


def test_schema_has_the_fields_bounds_and_choices_of_the_contract() -> None:
    schema = json.loads(reference.schema_text())
    fields = schema["properties"]
    assert fields.keys() == {field.name for field in (*INPUTS, *CONTROL_INPUTS) if field.datatype != "BYTES"}
    assert schema["required"] == ["task_id", "prompt"]
    assert fields["func_name"]["enum"] == ["t2i", "i2i", "inpaint", "outpaint"]
    assert fields["steps"]["anyOf"] == [{"type": "integer", "minimum": 1, "maximum": 150}, {"const": 0}]
    assert fields["lora_path"]["anyOf"][0]["maxItems"] == 8
