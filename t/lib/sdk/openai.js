// OpenAI's own SDK.

export default async function ({ load, model, baseURL, limitedURL, apiKey, user, counted, gather }) {
    const { default: OpenAI } = await load("openai");

    const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
    const chat = client.chat.completions;
    const weather = { type: "function", function: { name: "weather", parameters: {} } };
    const content = (chunk) => chunk.choices[0]?.delta?.content;

    return {
        async answer() {
            const reply = await chat.create({ model, messages: user("sdk") });
            return { text: reply.choices[0].message.content, tokens: reply.usage.total_tokens,
                id: reply._request_id };
        },

        async stream() {
            let tokens = 0;
            const stream = await chat.create({ model, stream: true,
                stream_options: { include_usage: true }, messages: user("a stream of words") });
            const said = await gather(stream, (chunk) => {
                tokens = chunk.usage?.total_tokens ?? tokens;
                return content(chunk);
            });
            return { ...said, tokens };
        },

        // The first of each is from the model, the others from the cache.
        async cached() {
            const reply = () => chat.create({ model, seed: 7, messages: user("kept"), n: 1 });
            return { replies: [await reply(), await reply()] };
        },

        async cached_stream() {
            const reply = async () => {
                let end, tokens, role, head;
                const stream = await chat.create({ model, seed: 7, stream: true,
                    stream_options: { include_usage: true }, messages: user("kept stream") });
                const { text } = await gather(stream, ({ choices, usage, ...others }) => {
                    head = others;
                    end = choices[0]?.finish_reason ?? end;
                    role = choices[0]?.delta.role ?? role;
                    tokens = usage ?? tokens;
                    return choices[0]?.delta.content;
                });
                return { text, role, end, tokens, head };
            };
            return { replies: [await reply(), await reply()] };
        },

        // As the SDK itself puts a stream together: first as it comes from the
        // model, then from the cache, where it is also asked for in one piece.
        async cached_forms() {
            const body = { model, messages: user("[tool] kept"), tools: [weather] };
            const final = () => chat.stream({ ...body, stream_options: { include_usage: true } })
                .finalChatCompletion();
            const replies = [await final(), await final(), await chat.create(body)];
            for (const reply of replies) {
                const [choice] = reply.choices;
                delete choice.message.parsed;
                choice.message.tool_calls.forEach((call) => delete call.function.parsed_arguments);
            }
            return { replies };
        },

        async tool() {
            const reply = await chat.create({ model, messages: user("[tool] sdk"),
                tools: [weather] });
            return reply.choices[0].message.tool_calls[0].function;
        },

        async final_tool() {
            const runner = chat.stream({ model, messages: user("[tool] stream"),
                tools: [weather] });
            const reply = await runner.finalChatCompletion();
            return reply.choices[0].message.tool_calls[0].function;
        },

        // The SDK calls the tool and goes on with what it says.
        async tools_run() {
            let city;
            const runner = chat.runTools({ model, messages: user("[tool x1] and what it says"),
                tools: [{ type: "function", function: { name: "weather", parse: JSON.parse,
                    parameters: { type: "object" }, description: "The weather",
                    function: (args) => (city = args.city, "sunny") } }] });
            return { text: await runner.finalContent(), city };
        },

        async response() {
            const reply = await client.responses.create({ model, input: "sdk response" });
            return { text: reply.output_text, tokens: reply.usage.total_tokens,
                id: reply._request_id };
        },

        async response_stream() {
            let end;
            const stream = await client.responses.create({ model, stream: true,
                input: "a streamed response" });
            const said = await gather(stream, (event) => {
                end = event.type;
                return event.type === "response.output_text.delta" ? event.delta : "";
            });
            return { ...said, end };
        },

        async response_tool() {
            const reply = await client.responses.create({ model, input: "[tool] response",
                tools: [{ type: "function", name: "weather", parameters: {} }] });
            return reply.output[0];
        },

        async response_broken() {
            const stream = await client.responses.create({ model, stream: true,
                input: "[half] a b c d e f g h i j" });
            return gather(stream, () => "");
        },

        async models() {
            const names = [];
            for await (const one of client.models.list()) names.push(one.id);
            return { names };
        },

        async missing() {
            return chat.create({ model: "gpt-99", messages: user("hi") });
        },

        async stranger() {
            return new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list();
        },

        async wrong() {
            return chat.create({ model, messages: "hi" });
        },

        // The first reply is a 503 with Retry-After, which the SDK follows.
        async retried() {
            const patient = new OpenAI({ baseURL, apiKey, maxRetries: 2 });
            const reply = await patient.chat.completions.create({ model,
                messages: user("[status 429 x1] again") });
            return { text: reply.choices[0].message.content };
        },

        // What was paid for once already is not asked again.
        async not_retried() {
            const { times, fetch } = counted();
            const patient = new OpenAI({ baseURL, apiKey, maxRetries: 2, fetch });
            let status;
            await patient.chat.completions.create({ model, messages: user("[garbage] once") })
                .catch((error) => { status = error.status; });
            return { status, times: times.length };
        },

        async limited() {
            const { fetch, waits } = counted();
            const patient = new OpenAI({ baseURL: limitedURL, apiKey, maxRetries: 2, fetch });
            const ask = (content) => patient.chat.completions.create({ model,
                messages: user(content) });
            await ask("the first");
            const reply = await ask("the second");
            return { text: reply.choices[0].message.content, waits: waits() };
        },

        async limited_at_once() {
            const hasty = new OpenAI({ baseURL: limitedURL, apiKey, maxRetries: 0 });
            const ask = (content) => hasty.chat.completions.create({ model,
                messages: user(content) });
            const said = await Promise.allSettled([ask("one"), ask("two")]);
            throw said.find((one) => one.reason).reason;
        },

        async aborted() {
            const stream = await chat.create({ model, stream: true,
                messages: user("[slowstream 0.05] [words 200] abort") });
            const { text } = await gather(stream, (chunk) => {
                if (content(chunk)) stream.controller.abort();
                return content(chunk);
            });
            return { text };
        },

        async aborted_early() {
            const controller = new AbortController();
            setTimeout(() => controller.abort(), 100);
            return chat.create({ model, messages: user("[delay 1] abort early") },
                { signal: controller.signal });
        },

        async timeout() {
            return chat.create({ model, messages: user("[delay 5] late") }, { timeout: 300 });
        },

        async late_model() {
            return chat.create({ model, messages: user("[silent] never") });
        },
    };
}
