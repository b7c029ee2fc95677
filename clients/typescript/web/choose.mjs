// Opens the page in a headless browser, chooses a picture as a user does, and prints what the page says, and its console as errors:
// node choose.mjs BROWSER PAGE_URL PICTURE [SCREENSHOT]

import puppeteer from "puppeteer-core";

const [executablePath, url, picture, screenshot] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const page = await browser.newPage();
  page.on("console", (message) => console.error(message.text()));
  page.on("pageerror", (error) => console.error(error));
  await page.goto(url);
  const input = await page.waitForSelector("input");
  const before = await page.$eval("output", (output) => output.textContent);
  await input.uploadFile(picture);
  await page.waitForFunction((text) => document.querySelector("output").textContent !== text, {}, before);
  console.log(await page.$eval("output", (output) => output.textContent));
  if (screenshot) await page.screenshot({ path: screenshot });
} finally {
  await browser.close();
}
