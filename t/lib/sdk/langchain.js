// LangChain, whose current versions need Node.js 20.

export default async function ({ load, model, baseURL, limitedURL, apiKey, counted, gather }) {
    const { ChatOpenAI } = await load("@langchain/openai");
    const at = (url, more = {}) => new ChatOpenAI({ model, apiKey, maxRetries: 0, ...more,
        configuration: { baseURL: url, ...more.configuration } });
    const chatbot = at(baseURL);
    const weather = { type: "function", function: { name: "weather",
        parameters: { type: "object", properties: { city: { type: "string" } } } } };

    return {
        async answer() {
            const { content, usage_metadata, response_metadata } = await chatbot.invoke("chain");
            return { text: content, tokens: usage_metadata.total_tokens,
                end: response_metadata.finish_reason };
        },

        async stream() {
            let tokens = 0;
            const said = await gather(await chatbot.stream("a chain's stream"), (chunk) => {
                tokens = chunk.usage_metadata?.total_tokens ?? tokens;
                return chunk.content;
            });
            return { ...said, tokens };
        },

        async tool() {
            const { tool_calls } = await chatbot.bindTools([weather]).invoke("[tool] chain");
            return { name: tool_calls[0].name, city: tool_calls[0].args.city };
        },

        async batch() {
            const replies = await chatbot.batch(["one of a batch", "two of a batch"]);
            return { text: replies.map((reply) => reply.content.replace(/^.*: /, "")).join("; ") };
        },

        async response() {
            const { text } = await at(baseURL, { useResponsesApi: true }).invoke("chain response");
            return { text };
        },

        async missing() {
            return at(baseURL, { model: "gpt-99" }).invoke("hi");
        },

        async limited() {
            const { fetch, waits } = counted();
            const limited = at(limitedURL, { maxRetries: 3, configuration: { fetch } });
            await limited.invoke("chain's first");
            const { content } = await limited.invoke("chain's second");
            return { text: content, waits: waits() };
        },

        async aborted() {
            const controller = new AbortController();
            const stream = await chatbot.stream("[slowstream 0.05] [words 200] chain's abort",
                { signal: controller.signal });
            let text = "";
            try {
                for await (const chunk of stream) {
                    text += chunk.content;
                    if (text) controller.abort();
                }
            } catch (error) {
                return { text, error: error.name };
            }
            return { text };
        },
    };
}
