// Vercel's AI SDK.

export default async function ({ load, model, baseURL, limitedURL, apiKey, counted, gather }) {
    const { generateText, streamText, tool, stepCountIs, jsonSchema } = await load("ai");
    const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

    const at = (url, more) => createOpenAICompatible({ name: "chatbot", baseURL: url, apiKey,
        includeUsage: true, ...more })(model);
    const chatbot = at(baseURL);
    const tools = (heard) => ({ weather: tool({ description: "The weather",
        inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } } }),
        execute: async ({ city }) => (heard.city = city, "sunny") }) });
    // Without a word on stderr about what the test asks for.
    const silent = { onError: () => {} };

    return {
        async answer() {
            const { text, usage, finishReason } = await generateText({ model: chatbot,
                prompt: "vercel" });
            return { text, tokens: usage.totalTokens, end: finishReason };
        },

        async stream() {
            const stream = streamText({ model: chatbot, prompt: "a vercel stream" });
            const said = await gather(stream.textStream, (text) => text);
            return { ...said, tokens: (await stream.usage).totalTokens };
        },

        async tools() {
            const heard = {};
            const { text } = await generateText({ model: chatbot, tools: tools(heard),
                prompt: "[tool x1] vercel's", stopWhen: stepCountIs(3) });
            return { text, ...heard };
        },

        async streamed_tools() {
            const heard = {};
            const stream = streamText({ model: chatbot, tools: tools(heard),
                prompt: "[tool x1] vercel's stream", stopWhen: stepCountIs(3) });
            return { ...await gather(stream.textStream, (text) => text), ...heard };
        },

        async missing() {
            return generateText({ model: createOpenAICompatible({ name: "chatbot", baseURL,
                apiKey })("gpt-99"), prompt: "hi" });
        },

        async limited() {
            const { fetch, waits } = counted();
            const limited = at(limitedURL, { fetch });
            await generateText({ model: limited, prompt: "vercel's first" });
            const { text } = await generateText({ model: limited, prompt: "vercel's second" });
            return { text, waits: waits() };
        },

        async aborted() {
            const controller = new AbortController();
            const stream = streamText({ model: chatbot, abortSignal: controller.signal, ...silent,
                prompt: "[slowstream 0.05] [words 200] abort" });
            const { text } = await gather(stream.textStream, (piece) => {
                controller.abort();
                return piece;
            });
            return { text };
        },

        async broken() {
            let error;
            const stream = streamText({ model: chatbot, prompt: "[status 200] [error message=oh]"
                + " [slowstream 0.05] a b c d e f", maxRetries: 0,
                onError: (event) => { error = event.error; } });
            const { text } = await gather(stream.textStream, (piece) => piece);
            return { text, error: error.message ?? error };
        },
    };
}
