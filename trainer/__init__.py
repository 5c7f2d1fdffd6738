"""What is learned: curation, training examples, QLoRA on Ray Train, evaluation."""
