import { defineConfig } from "vite";

// The service gives the page away under its own strict content security policy: no inline code, no data: scripts.
export default defineConfig({
  build: {
    outDir: "../src/fieldmark/app/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: true,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000", "/media": "http://127.0.0.1:8000" } },
});
