// Asks as users of the SDKs do, for t/sdk.t: prints what came back as JSON, one
// line for each question.  node ask.js BASE_URL KEY NODE_MODULES

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [baseURL, apiKey, modules] = process.argv.slice(2);
const { resolve } = createRequire(pathToFileURL(`${modules}/`));
const load = (name) => import(pathToFileURL(resolve(name)));

const { default: OpenAI } = await load("openai");
const { generateText, streamText } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "gpt-6-luna";
const user = (content) => [{ role: "user", content }];

const questions = {
    async answer() {
        const reply = await client.chat.completions.create({ model, messages: user("sdk") });
        return { text: reply.choices[0].message.content, tokens: reply.usage.total_tokens,
            id: reply._request_id };
    },

    async stream() {
        const stream = await client.chat.completions.create({ model, stream: true,
            stream_options: { include_usage: true }, messages: user("a stream of words") });
        let text = "", pieces = 0, tokens = 0;
        for await (const chunk of stream) {
            const piece = chunk.choices[0]?.delta?.content ?? "";
            text += piece;
            pieces += piece !== "";
            tokens = chunk.usage?.total_tokens ?? tokens;
        }
        return { text, pieces: pieces > 1, tokens: tokens > 0 };
    },

    async tool() {
        const reply = await client.chat.completions.create({ model, messages: user("[tool] sdk"),
            tools: [{ type: "function", function: { name: "weather", parameters: {} } }] });
        return reply.choices[0].message.tool_calls[0].function;
    },

    // Of a stream, as the SDK itself puts it together.
    async final_tool() {
        const runner = client.chat.completions.stream({ model, messages: user("[tool] stream"),
            tools: [{ type: "function", function: { name: "weather", parameters: {} } }] });
        const reply = await runner.finalChatCompletion();
        return { ...reply.choices[0].message.tool_calls[0].function, parsed_arguments: undefined };
    },

    async response() {
        const reply = await client.responses.create({ model, input: "sdk response" });
        return { text: reply.output_text, tokens: reply.usage.total_tokens };
    },

    async response_stream() {
        const stream = await client.responses.create({ model, stream: true,
            input: "a streamed response" });
        let text = "", end;
        for await (const event of stream) {
            if (event.type === "response.output_text.delta") text += event.delta;
            end = event.type;
        }
        return { text, end };
    },

    async response_broken() {
        const stream = await client.responses.create({ model, stream: true,
            input: "[half] a b c d e f g h i j" });
        for await (const event of stream) void event;
        return { ended: true };
    },

    async models() {
        const names = [];
        for await (const one of client.models.list()) names.push(one.id);
        return { names };
    },

    async missing() {
        return client.chat.completions.create({ model: "gpt-99", messages: user("hi") });
    },

    async stranger() {
        return new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list();
    },

    // The first reply is a 503 with Retry-After, which the SDK follows.
    async retried() {
        const patient = new OpenAI({ baseURL, apiKey, maxRetries: 2 });
        const reply = await patient.chat.completions.create({ model,
            messages: user("[status 429 x1] again") });
        return { text: reply.choices[0].message.content };
    },

    async aborted() {
        const stream = await client.chat.completions.create({ model, stream: true,
            messages: user("[slowstream 0.05] [words 200] abort") });
        for await (const chunk of stream) {
            if (chunk.choices[0]?.delta?.content) stream.controller.abort();
        }
        return { ended: true };
    },

    async timeout() {
        return client.chat.completions.create({ model, messages: user("[delay 5] late") },
            { timeout: 300 });
    },

    async vercel() {
        const provider = createOpenAICompatible({ name: "chatbot", baseURL, apiKey });
        const { text } = await generateText({ model: provider(model), prompt: "vercel" });
        const streamed = streamText({ model: provider(model), prompt: "a vercel stream" });
        let all = "";
        for await (const piece of streamed.textStream) all += piece;
        return { text, all };
    },
};

for (const [name, ask] of Object.entries(questions)) {
    let said;
    try {
        said = await ask();
    } catch (error) {
        said = { error: error.constructor.name, status: error.status, code: error.code,
            message: error.message };
    }
    console.log(JSON.stringify({ question: name, ...said }));
}
