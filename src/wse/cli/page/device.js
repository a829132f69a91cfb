// What a device is called, by what its browser says of itself.

// Nearly every browser says that it is Chrome, or Safari, and Android says that it is Linux: the particular first.
const BROWSERS = [
  ["Edge", /\bEdg(A|iOS)?\//],
  ["Opera", /\bOP[RTX]\//],
  ["Firefox", /\b(Firefox|FxiOS)\//],
  ["Chrome", /(Chrome|CriOS)\//],
  ["Safari", /\bSafari\//],
];
const SYSTEMS = [
  ["iPhone", /\biPhone\b/],
  ["iPad", /\biPad\b/],
  ["Android", /\bAndroid\b/],
  ["Windows", /\bWindows\b/],
  ["ChromeOS", /\bCrOS\b/],
  ["macOS", /\bMac OS X\b/],
  ["Linux", /\bLinux\b/],
];

export function deviceName(agent) {
  const first = (known) => known.find(([, pattern]) => pattern.test(agent))?.[0];
  const system = first(SYSTEMS);
  return (first(BROWSERS) ?? "Browser") + (system ? ` on ${system}` : "");
}
