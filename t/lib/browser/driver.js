// Drives Debian's Chromium for Test::Chatbot::Browser.
//
// Commands come on the standard input and results go to the standard output,
// one line of JSON each: [name, argument, ...] calls a method of Playwright's
// Page ("keyboard.press" is one of its keyboard), or one of these:
//
//     ["open", OPTIONS]    begins anew, as a browser that was never here;
//                          OPTIONS are those of browser.newContext()
//     ["until", SCRIPT]    waits until the expression is true in the page
//     ["complaints"]       what should not have happened since the last time

'use strict';

const { chromium } = require('playwright-core');
const readline = require('node:readline');

const TIMEOUT = 20000;          // milliseconds

let browser, page, complaints = [];

const commands = {
    async open(options) {
        await page?.context().close();
        const context = await browser.newContext(options);
        context.setDefaultTimeout(TIMEOUT);
        page = await context.newPage();
        complaints = [];

        page.on('pageerror', error => complaints.push(`exception: ${error.message}`));
        page.on('dialog', dialog => {
            complaints.push(`dialog: ${dialog.message()}`);
            dialog.dismiss();
        });
        page.on('console', message => {
            // the browser itself notes each 4xx and each broken connection
            if (/error|warning/.test(message.type()) && !/^Failed to load resource/.test(message.text()))
                complaints.push(`${message.type()}: ${message.text()}`);
        });
        context.on('page', other => other !== page && complaints.push(`opened: ${other.url()}`));
        page.on('request', request => {
            if (new URL(request.url()).origin !== new URL(page.url()).origin && page.url() !== 'about:blank')
                complaints.push(`request: ${request.url()}`);
        });
    },

    // not page.waitForFunction(), which the page's policy forbids
    async until(expression) {
        const deadline = Date.now() + TIMEOUT;
        while (!await page.evaluate(expression)) {
            if (Date.now() > deadline) {
                const text = await page.evaluate('document.body.innerText');
                throw new Error(`never true: ${expression}, on the page: ${text.slice(-500)}`);
            }
            await new Promise(resolve => setTimeout(resolve, 10));
        }
    },
    complaints: () => complaints.splice(0),
};

async function run([name, ...args]) {
    if (commands[name]) return commands[name](...args);

    const path = name.split('.');
    const method = path.pop();
    const target = path.reduce((object, member) => object[member], page);
    return target[method](...args);
}

async function main() {
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        args: process.getuid() ? [] : ['--no-sandbox'],
    });

    for await (const line of readline.createInterface({ input: process.stdin })) {
        let reply;
        try {
            const result = await run(JSON.parse(line));
            reply = { result: typeof result === 'object' && !Array.isArray(result) ? null : result ?? null };
        } catch (error) {
            reply = { error: error.message };
        }
        process.stdout.write(JSON.stringify(reply) + '\n');
    }
    await browser.close();
}

main();
