"""Files of providers' consoles: known by their columns, read exactly, refused where something is not known."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.export_layouts import ExportFormat, UnreadableExportError
from gateway_core.usage_exports import UsageExport, model_key, read_export

OPENAI_USAGE = """\
start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,service_tier,\
input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens,input_text_tokens,output_text_tokens,\
input_cached_text_tokens,input_audio_tokens,input_cached_audio_tokens,output_audio_tokens,input_image_tokens,\
input_cached_image_tokens,output_image_tokens
1767225600,1767312000,2026-01-01T00:00:00+00:00,2026-01-02T00:00:00+00:00,p1,10.0,u,k1,gpt-4o-2024-08-06,FALSE,default,\
59200.0,10646.0,5760.0,53440.0,53440.0,10646.0,5760.0,0.0,0.0,0.0,0.0,0.0,0.0
1767225600,1767312000,2026-01-01T00:00:00+00:00,2026-01-02T00:00:00+00:00,p1,1.0,u,k2,gpt-4o-2024-08-06,FALSE,default,\
100.0,10.0,0.0,100.0,100.0,10.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0
1767312000,1767398400,2026-01-02T00:00:00+00:00,2026-01-03T00:00:00+00:00,,,,,,,,,,,,,,,,,,,,
"""
OPENAI_COSTS = """\
start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,line_item,user_id,\
api_key_id,project_id,organization_id,project_name,organization_name,user_email,api_source
1767225600,1767312000,2026-01-01T00:00:00,2026-01-02T00:00:00,0.003835980000000000000000000001,usd,1,tokens,\
"gpt-4o-2024-08-06, input",,,,org,,Org,,
1767225600,1767312000,2026-01-01T00:00:00,2026-01-02T00:00:00,0.5,usd,1,tokens,"gpt-4o-2024-08-06, cached input",,,,org,,Org,,
1767225600,1767312000,2026-01-01T00:00:00,2026-01-02T00:00:00,0.25,usd,1,tokens,"priority | gpt-audio audio, output",,,,org,,Org,,
1767225600,1767312000,2026-01-01T00:00:00,2026-01-02T00:00:00,1,usd,1,calls,web search tool calls,,,,org,,Org,,
"""
ANTHROPIC_USAGE = """\
usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,\
usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,\
web_search_count,inference_geo,speed
2026-01-01,claude-sonnet-4-20250514,"a, key",Default,standard,\N{LESS-THAN OR EQUAL TO} 200k,100,20,3,4,50,1,global,
"""
ANTHROPIC_COST = """\
usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,inference_geo,speed
2026-01-01,Claude Haiku 4.5,Default,k,message,\N{LESS-THAN OR EQUAL TO} 200k,input_no_cache,0.05,0.05,token,global,
2026-01-01,Claude Haiku 4.5,Default,k,message,\N{LESS-THAN OR EQUAL TO} 200k,output,0.02,0.02,token,global,
"""
OPENROUTER = """\
generation_id,created_at,cost_total,cost_web_search,cost_cache,cost_file_processing,byok_usage_inference,tokens_prompt,\
tokens_completion,tokens_reasoning,tokens_cached,model_permaslug,provider_name,variant,cancelled,streamed,user,\
finish_reason_raw,finish_reason_normalized,generation_time_ms,time_to_first_token_ms,api_key_disabled,api_key_name,app_name
gen-1,2026-01-01 03:46:57.713,0.0123,0,0,0,0,100,20,5,10,openai/gpt-4o-mini,OpenAI,standard,false,true,,stop,stop,1,1,false,k,a
gen-2,2026-01-01 03:59:59.999,1.5e-7,0,0,0,0,1,1,0,0,openai/gpt-4o-mini,OpenAI,free,false,true,,stop,stop,1,1,false,k,a
"""
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def read(text: str, expected: ExportFormat | None = None) -> UsageExport:
    return read_export(io.StringIO(text, newline=""), expected)


def test_openais_usage_is_added_up_over_keys_and_an_empty_day_is_nothing() -> None:
    export = read(OPENAI_USAGE)
    assert (export.format, export.is_hourly) == (ExportFormat.OPENAI_USAGE, False)
    assert export.amounts == {
        (DAY, "gpt-4o-2024-08-06"): {
            "requests": 11,
            "input_tokens": 59300,
            "cached_input": 5760,
            "output_tokens": 10656,
        }
    }


def test_openais_costs_are_by_model_and_rounded_once() -> None:
    export = read(OPENAI_COSTS)
    assert export.amounts == {
        (DAY, "gpt-4o-2024-08-06"): {"cost_usd": 503_835_980},
        (DAY, "gpt-audio"): {"cost_usd": 250_000_000},
        (DAY, "web search tool calls"): {"cost_usd": 1_000_000_000},
    }


def test_anthropics_usage_keeps_the_lifetimes_of_caches_apart() -> None:
    assert read(ANTHROPIC_USAGE).amounts == {
        (DAY, "claude-sonnet-4-20250514"): {
            "input": 100,
            "cache_write_5m": 20,
            "cache_write_1h": 3,
            "cached_input": 4,
            "output_tokens": 50,
            "web_search": 1,
        }
    }


def test_anthropics_costs_may_be_off_by_half_a_cent_a_row() -> None:
    assert read(ANTHROPIC_COST).amounts == {
        (DAY, "Claude Haiku 4.5"): {"cost_usd": 70_000_000, "cost_rounding_usd": 10_000_000}
    }


def test_each_row_of_openrouters_activity_is_a_request_of_its_hour() -> None:
    export = read(OPENROUTER)
    assert export.is_hourly
    assert export.amounts == {
        (DAY.replace(hour=3), "openai/gpt-4o-mini"): {
            "requests": 1,
            "input_tokens": 100,
            "cached_input": 10,
            "output_tokens": 20,
            "reasoning": 5,
            "cost_usd": 12_300_000,
        },
        (DAY.replace(hour=3), "openai/gpt-4o-mini:free"): {
            "requests": 1,
            "input_tokens": 1,
            "cached_input": 0,
            "output_tokens": 1,
            "reasoning": 0,
            "cost_usd": 150,
        },
    }


@pytest.mark.parametrize("text", [OPENAI_USAGE, OPENAI_COSTS, ANTHROPIC_USAGE, ANTHROPIC_COST, OPENROUTER])
def test_a_file_that_was_added_up_says_the_same_in_our_own_format(text: str) -> None:
    export = read(text)
    again = read(export.as_plain())
    assert again.format is ExportFormat.PLAIN
    assert (again.measures, again.is_hourly) == (export.measures, export.is_hourly)
    for slot, amounts in export.amounts.items():
        assert {name: amount for name, amount in again.amounts[slot].items() if amount} == {
            name: amount for name, amount in amounts.items() if amount
        }


def test_what_a_spreadsheet_wrote_is_read_too() -> None:
    export = read('\ufeff"day","model","requests","input","cost_usd"\r\n2026-01-01,m,1,2,0.5\r\n\r\n')
    assert export.amounts == {(DAY, "m"): {"requests": 1, "input": 2, "cost_usd": 500_000_000}}


def test_rows_in_two_time_zones_meet_in_utc() -> None:
    export = read("hour,model,requests\n2026-01-01T02:30+02:00,m,1\n2026-01-01T00:10Z,m,2\n")
    assert export.amounts == {(DAY, "m"): {"requests": 3}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no format that is known (openai-usage:"),
        ("a,b\n1,2\n", "plain: model, ...)"),
        ("day,model,cost_eur\n2026-01-01,m,1\n", "plain has no columns cost_eur; known are audio_input,"),
        ("day,model,day,input\n2026-01-01,m,1,1\n", "two columns have one name"),
        ("day,hour,model,input\n2026-01-01,,m,1\n", "plain needs one of the columns day, hour"),
        ("day,model\n2026-01-01,m\n", "no column that counts anything"),
        ("day,model,input\n2026-01-01,m\n", "line 2: it has 2 values for 3 columns"),
        ("day,model,input\n2026-01-01,,1\n", "line 2: it does not say which model"),
        ("day,model,input\n2026-01-01,m,-1\n", "line 2: input is no whole number"),
        ("day,model,input\n2026-01-01,m,1.5\n", "line 2: input is no whole number"),
        ("day,model,cost_usd\n2026-01-01,m,$1\n", "line 2: cost_usd is no amount"),
        ("day,model,cost_usd\n2026-01-01,m,1e99\n", "line 2: cost_usd is no amount"),
        ("day,model,input\n01/02/2026,m,1\n", "line 2: day is no date and no moment"),
        ('day,model,input\n2026-01-01,"m,1\n', "line 2: "),
        ("day,model,input\n", "it has no usage in it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line_and_what_is_known(text: str, said: str) -> None:
    with pytest.raises(UnreadableExportError) as refused:
        read(text)
    assert said in str(refused.value)


def test_a_file_of_another_format_than_was_said_is_refused() -> None:
    with pytest.raises(UnreadableExportError, match="openai-costs needs the columns amount_currency"):
        read(ANTHROPIC_USAGE, ExportFormat.OPENAI_COSTS)


@given(st.text(max_size=300))
def test_no_text_ends_in_anything_but_usage_or_a_refusal(text: str) -> None:
    for content in (
        text,
        f"day,model,input,cost_usd\n{text}",
        f"start_time,end_time,amount_value,amount_currency,line_item\n{text}",
    ):
        try:
            read(content)
        except UnreadableExportError:
            continue


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("claude-sonnet-4", "claude-sonnet-4-20250514"),
        ("claude-3-5-haiku-latest", "Claude 3.5 Haiku 2024-10-22"),
        ("claude-opus-4-6", "Claude Opus 4.6"),
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
    ],
)
def test_a_snapshot_and_the_name_that_follows_it_are_one_model(one: str, other: str) -> None:
    assert model_key(one) == model_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("gpt-4o", "gpt-4o-mini"), ("claude-opus-4", "claude-opus-4-6"), ("gpt-4", "gpt-4.1")]
)
def test_other_models_are_others(one: str, other: str) -> None:
    assert model_key(one) != model_key(other)
