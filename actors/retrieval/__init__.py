"""Documents for dialogues: embedding, store, planting of the wanted document, retriever."""
