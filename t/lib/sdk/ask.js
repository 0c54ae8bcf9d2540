// Asks as users of the SDKs do, for t/sdk.t: prints what came back as JSON, one
// line for each question.  node ask.js ORIGIN NODE_MODULES SDK
//
// A file SDK.js exports a function that gets what is below as `world`, and
// returns the questions by their names; each returns what it was told.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [origin, modules, sdk] = process.argv.slice(2);
const { resolve } = createRequire(pathToFileURL(`${modules}/`));

const world = {
    // A package of the SDKs.
    load: (name) => import(pathToFileURL(resolve(name))),

    model: "gpt-6-luna",
    baseURL: `${origin}/v1`,
    limitedURL: `${origin}/limited/v1`, // a request each 2 s
    apiKey: `sk-${sdk}`,

    user: (content) => [{ role: "user", content }],

    // A fetch() that notes when it was called.
    counted() {
        const times = [];
        const counting = (...args) => {
            times.push(Date.now());
            return fetch(...args);
        };
        return { times, fetch: counting,
            waits: () => times.slice(1).map((time, i) => time - times[i]) };
    },

    // What a stream brings, and how many pieces of it there were.
    async gather(stream, text_of) {
        let text = "", pieces = 0;
        for await (const part of stream) {
            const piece = text_of(part) ?? "";
            text += piece;
            pieces += piece !== "";
        }
        return { text, pieces };
    },
};

const { default: questions } = await import(`./${sdk}.js`);
for (const [name, ask] of Object.entries(await questions(world))) {
    let said;
    try {
        said = await ask();
    } catch (error) {
        said = { error: error.constructor.name, status: error.status ?? error.statusCode,
            code: error.code, param: error.param, message: error.message };
    }
    console.log(JSON.stringify({ question: name, ...said }));
}
