// The search works in a worker, which a browser does not start for pages that are opened from disk: a frame stands in.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.appendChild(frame);
    this.inner = frame.contentWindow;
    this.ready = new Promise(resolve => {
      const page = this.inner.document;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      this.inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      const script = page.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = resolve;
      page.body.appendChild(script);
    });
  }
  postMessage(data) {
    this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", {data})));
  }
  terminate() {}
};
