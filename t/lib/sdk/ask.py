"""Asks as users of OpenAI's SDK for Python do, for t/sdk_python.t: prints what came
back as JSON, one line for each question.  python3 ask.py ORIGIN
"""

import asyncio
import json
import sys
import time

import httpx
import openai

ORIGIN = sys.argv[1]
MODEL = "gpt-6-luna"
OPTIONS = {"base_url": f"{ORIGIN}/v1", "api_key": "sk-python", "max_retries": 0}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}

client = openai.OpenAI(**OPTIONS)
chat = client.chat.completions


def user(content):
    return [{"role": "user", "content": content}]


def gather(pieces):
    """What a stream brings, and how many pieces of it there were."""
    pieces = [piece for piece in pieces if piece]
    return {"text": "".join(pieces), "pieces": len(pieces)}


def content(chunk):
    return chunk.choices[0].delta.content if chunk.choices else None


def counting():
    """A client that notes when it sends a request, in milliseconds."""
    times = []
    http = httpx.Client(
        event_hooks={"request": [lambda _: times.append(time.monotonic() * 1000)]}
    )
    return times, {**OPTIONS, "max_retries": 2, "http_client": http}


def answer():
    reply = chat.create(model=MODEL, messages=user("sdk"))
    return {
        "text": reply.choices[0].message.content,
        "tokens": reply.usage.total_tokens,
        "id": reply._request_id,
    }


def stream():
    chunks = list(
        chat.create(
            model=MODEL,
            messages=user("a stream of words"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    return {**gather(map(content, chunks)), "tokens": chunks[-1].usage.total_tokens}


def cached():
    """The first is from the model, the second from the cache."""

    def reply():
        return chat.create(model=MODEL, seed=7, messages=user("kept")).to_dict()

    return {"replies": [reply(), reply()]}


def cached_stream():
    def reply():
        chunks = chat.create(model=MODEL, seed=7, messages=user("kept stream"), stream=True)
        return gather(map(content, chunks))["text"]

    return {"replies": [reply(), reply()]}


def final_tool():
    """As the SDK itself puts a stream together."""
    with client.beta.chat.completions.stream(
        model=MODEL, messages=user("[tool] stream"), tools=[WEATHER]
    ) as events:
        called = events.get_final_completion().choices[0].message.tool_calls[0].function
    return {"name": called.name, "arguments": called.arguments}


def response():
    reply = client.responses.create(model=MODEL, input="sdk response")
    return {"text": reply.output_text, "id": reply._request_id}


def response_stream():
    events = list(
        client.responses.create(model=MODEL, input="a streamed response", stream=True)
    )
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    return {**gather(deltas), "end": events[-1].type}


def models():
    return {"names": [model.id for model in client.models.list()]}


def missing():
    chat.create(model="gpt-99", messages=user("hi"))


def stranger():
    openai.OpenAI(**{**OPTIONS, "api_key": "sk-wrong"}).models.list()


def wrong():
    chat.create(model=MODEL, messages="hi")


def retried():
    """The first reply is a 503 with Retry-After, which the SDK follows."""
    times, options = counting()
    reply = openai.OpenAI(**options).chat.completions.create(
        model=MODEL, messages=user("[status 429 x1] again")
    )
    return {"text": reply.choices[0].message.content, "times": len(times)}


def not_retried():
    """What was paid for once already is not asked again."""
    times, options = counting()
    try:
        openai.OpenAI(**options).chat.completions.create(
            model=MODEL, messages=user("[garbage] once")
        )
    except openai.APIStatusError as error:
        return {"status": error.status_code, "times": len(times)}


def limited():
    times, options = counting()
    patient = openai.OpenAI(**{**options, "base_url": f"{ORIGIN}/limited/v1"})
    for question in "the first", "the second":
        reply = patient.chat.completions.create(model=MODEL, messages=user(question))
    waits = [later - earlier for earlier, later in zip(times, times[1:])]
    return {"text": reply.choices[0].message.content, "waits": waits}


def aborted():
    read = []
    with chat.create(
        model=MODEL, messages=user("[slowstream 0.05] [words 200] abort"), stream=True
    ) as chunks:
        for chunk in chunks:
            read.append(content(chunk))
            if read[-1]:
                break
    return gather(read)


def timeout():
    client.with_options(timeout=0.3).chat.completions.create(
        model=MODEL, messages=user("[delay 5] late")
    )


def broken():
    """An error in mid-stream."""
    return gather(
        content(chunk)
        for chunk in chat.create(
            model=MODEL,
            messages=user("[status 200] [error message=oh] [slowstream 0.05] a b c d e f"),
            stream=True,
        )
    )


def together():
    """Three at once, two of them streams, by the asynchronous client."""

    async def streamed(asynchronous, question):
        chunks = await asynchronous.chat.completions.create(
            model=MODEL, messages=user(question), stream=True
        )
        return gather([content(chunk) async for chunk in chunks])["text"]

    async def whole(asynchronous, question):
        reply = await asynchronous.chat.completions.create(
            model=MODEL, messages=user(question)
        )
        return reply.choices[0].message.content

    async def all_of_them():
        async with openai.AsyncOpenAI(**OPTIONS) as asynchronous:
            return await asyncio.gather(
                streamed(asynchronous, "together"),
                streamed(asynchronous, "[delay 0.2] two"),
                whole(asynchronous, "[delay 0.2] three"),
            )

    return {"texts": asyncio.run(all_of_them())}


QUESTIONS = [
    answer, stream, cached, cached_stream, final_tool, response, response_stream, models,
    missing, stranger, wrong, retried, not_retried, limited, aborted, timeout, broken,
    together,
]  # fmt: skip

for question in QUESTIONS:
    try:
        said = question()
    except openai.OpenAIError as error:
        said = {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": getattr(error, "code", None),
            "param": getattr(error, "param", None),
            "message": str(error),
        }
    print(json.dumps({"question": question.__name__, **(said or {})}), flush=True)
